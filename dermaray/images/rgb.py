"""From what Pillow holds to eight bits of red, green and blue."""

import numpy as np
from PIL import Image

from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array

_WITHOUT_WHITE = {"I": "32 bits, or of 16 with a sign", "F": "floating-point numbers"}
"""Modes of Pillow whose levels do not say which of them is white, and what they hold."""


def rgb_pixels(image: Image.Image) -> UInt8Array:
    """Return a picture as uint8 [rows, columns, 3]; 16-bit grey keeps its upper eight bits.

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
        # Pillow's own conversion clips 16-bit values at 255 rather than scaling them.
        grey = np.asarray(image) >> 8
        return np.asarray(np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
