"""From what Pillow holds to eight bits of red, green and blue."""

import numpy as np
from PIL import Image

from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array

_WITHOUT_WHITE = {"I": "32 bits, or of 16 with a sign", "F": "floating-point numbers"}
"""Modes of Pillow whose levels do not say which of them is white, and what they hold."""

_BITS, _PHOTOMETRIC = 258, 262
"""Tags of a TIFF."""


def rgb_pixels(image: Image.Image) -> UInt8Array:
    """Return a picture as uint8 [rows, columns, 3]; grey of 16 bits, or 12 in a TIFF, keeps its upper eight.

    Raises:
        ImageError: It is grey, and which of its levels is white is not known.
    """
    if image.mode in _WITHOUT_WHITE:
        raise ImageError(
            "unsupported",
            f"grey of {_WITHOUT_WHITE[image.mode]}: which of them is white is not known. "
            "Save it as grey of 8 bits, or of 16 without a sign",
        )
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16-bit values at 255 rather than scaling them. Of a TIFF it neither scales 12
        # bits to 16, nor turns what has white at 0.
        tags = getattr(image, "tag_v2", {})
        grey = (np.asarray(image) >> (tags.get(_BITS, (16,))[0] - 8)).astype(np.uint8)
        return np.repeat((255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)[..., None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
