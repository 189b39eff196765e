"""From what Pillow holds to eight bits of red, green and blue."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array

_WITHOUT_WHITE = {"I": "32 bits, or of 16 with a sign", "F": "floating-point numbers"}
"""Modes of Pillow whose levels do not say which of them is white, and what they hold."""

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _SAMPLE_FORMAT = 258, 262, 277, 284, 339
"""Tags of a TIFF."""

_SIGNED = 2
"""A sample format."""


def rgb_pixels(image: Image.Image) -> UInt8Array:
    """Return a picture as uint8 [rows, columns, 3]; grey of 16 bits, or 12 in a TIFF, keeps its upper eight.

    Raises:
        ImageError: It is grey, and which of its levels is white is not known; or Pillow would read another picture.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode in _WITHOUT_WHITE:
        raise ImageError(
            "unsupported",
            f"grey of {_WITHOUT_WHITE[image.mode]}: which of them is white is not known. "
            "Save it as grey of 8 bits, or of 16 without a sign",
        )
    _check_tiff(tags)
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16-bit values at 255 rather than scaling them. Of a TIFF it neither scales 12
        # bits to 16, nor turns what has white at 0.
        grey = (np.asarray(image) >> (tags.get(_BITS, (16,))[0] - 8)).astype(np.uint8)
        return np.repeat((255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)[..., None], 3, axis=2)
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Pillow takes any for Adobe's, which are negative.
        image = ImageChops.invert(image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _check_tiff(tags: Mapping[int, Any]) -> None:
    """Refuse a TIFF that Pillow reads as another.

    Raises:
        ImageError: It has a sign, or colours of more than eight bits in planes of their own.
    """
    if _SIGNED in tuple(tags.get(_SAMPLE_FORMAT, ())):
        raise ImageError("unsupported", "a TIFF whose levels have a sign. Save it without")
    if tags.get(_SAMPLES, 1) > 1 and tags.get(_PLANES) == 2 and max(tags.get(_BITS, (8,))) > 8:
        raise ImageError(
            "unsupported", "a TIFF of more than 8 bits whose colours lie in separate planes. Save it as RGB"
        )
