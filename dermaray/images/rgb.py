"""From what Pillow holds to eight bits of red, green and blue."""

import numpy as np
from PIL import Image

from dermaray.images.resize import UInt8Array


def rgb_pixels(image: Image.Image) -> UInt8Array:
    """Return a picture as uint8 [rows, columns, 3]; 16-bit grey keeps its upper eight bits."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16-bit values at 255 rather than scaling them.
        grey = np.asarray(image) >> 8
        return np.asarray(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
