"""Whether an image looks like dermoscopy at all: a coarse rule on size and colour, to point out, not to judge."""

from dataclasses import dataclass

import numpy as np

from dermaray.images.resize import UInt8Array

# Among the 12,372 images of HAM10000 and of the published nine-class set nothing is beyond these limits (their extremes
# stand beside), except for a colour cast so strong that it deserves a look.
_MIN_SIDE = 64
_MAX_ASPECT = 3.0
_MIN_CONTRAST = 3.0  # 5.2
_MIN_CHROMA = 4.0  # 6.4
_BRIGHTNESS = (30.0, 245.0)  # 51 and 230
_MAX_COLD = 0.6  # 0.96; 18 images are beyond the limit


@dataclass(frozen=True)
class Appearance:
    """A few figures of an image's colours, each 0 to 255 except `cold`.

    Attributes:
        brightness: Mean of all channels.
        contrast: Standard deviation of the grey image.
        chroma: Mean difference between a pixel's largest and smallest channel; 0 for a grey image.
        cold: Share of pixels in which red is the weakest channel, 0 to 1: skin has few.
    """

    brightness: float
    contrast: float
    chroma: float
    cold: float


def appearance(pixels: UInt8Array) -> Appearance:
    """Measure an image; uint8 [height, width, 3], 32 pixels a side will do."""
    grey = pixels.mean(axis=2)
    chroma = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    cold = (pixels[..., 0] < pixels[..., 1]) & (pixels[..., 0] < pixels[..., 2])
    return Appearance(float(grey.mean()), float(grey.std()), float(chroma.mean()), float(cold.mean()))


def why_unlike_dermoscopy(width: int, height: int, seen: Appearance) -> str | None:
    """Say what is unlike dermoscopy, or None; `width` and `height` of the whole image in pixels."""
    if min(width, height) < _MIN_SIDE:
        return f"{width}x{height} pixels: smaller than {_MIN_SIDE}"
    if max(width, height) > _MAX_ASPECT * min(width, height):
        return f"{width}x{height} pixels: a strip"
    if seen.contrast < _MIN_CONTRAST:
        return f"blank: contrast {seen.contrast:.1f} of 255"
    if not _BRIGHTNESS[0] <= seen.brightness <= _BRIGHTNESS[1]:
        return f"{'dark' if seen.brightness < 128 else 'bright'} all over: brightness {seen.brightness:.0f} of 255"
    if seen.chroma < _MIN_CHROMA:
        return f"without colour: chroma {seen.chroma:.1f} of 255"
    if seen.cold > _MAX_COLD:
        return f"coloured unlike skin: red is the weakest channel in {seen.cold:.0%} of it"
    return None
