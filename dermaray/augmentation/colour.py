"""Augmentor's operations on colours. Tables are computed as Pillow computes them: equal pixels give equal results."""

from collections.abc import Callable
from random import Random

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from dermaray.augmentation.operation import FactorOperation, Operation
from dermaray.augmentation.pixel_map import PixelMap, scaling, shift
from dermaray.augmentation.scene import Scene
from dermaray.images.resize import UInt8Array, resize

_FINEST_NOISE = 512
_LEVELS = np.arange(256, dtype=np.float32)


class RandomBrightness(FactorOperation):
    """Blend with black."""

    name = "random_brightness"

    def apply(self, scene: Scene, draws: Random) -> None:
        scene.recolour(_blend(0.0, _LEVELS, draws.uniform(self.min_factor, self.max_factor)))


class RandomContrast(FactorOperation):
    """Blend with the image's mean grey."""

    name = "random_contrast"

    def apply(self, scene: Scene, draws: Random) -> None:
        factor = draws.uniform(self.min_factor, self.max_factor)

        def table(pixels: UInt8Array) -> UInt8Array:
            return _blend(float(int(_luma(pixels).mean() + 0.5)), _LEVELS, factor)

        scene.adjust(table)


class RandomColor(FactorOperation):
    """Blend with the grey image: saturation."""

    name = "random_color"

    def apply(self, scene: Scene, draws: Random) -> None:
        factor = draws.uniform(self.min_factor, self.max_factor)
        scene.repaint(_each(lambda pixels: _blend(_grey(pixels), pixels.astype(np.float32), factor)))


class Greyscale(Operation):
    """Turn grey."""

    name = "greyscale"

    def apply(self, scene: Scene, draws: Random) -> None:
        scene.repaint(_each(_grey))
        scene.mode = "L"


class BlackAndWhite(Operation):
    """Turn every pixel black whose grey is below the threshold, and every other white."""

    name = "black_and_white"
    threshold: float = Field(128, ge=0, le=255)

    def apply(self, scene: Scene, draws: Random) -> None:
        scene.repaint(_each(_grey))
        scene.recolour(np.where(np.arange(256) < self.threshold, 0, 255).astype(np.uint8))
        scene.mode = "1"


class Invert(Operation):
    """Make the negative."""

    name = "invert"

    def apply(self, scene: Scene, draws: Random) -> None:
        scene.recolour(np.arange(255, -1, -1, dtype=np.uint8))


class HistogramEqualisation(Operation):
    """Spread the levels of every channel evenly, as `PIL.ImageOps.equalize` does."""

    name = "histogram_equalisation"
    probability: float = Field(1.0, gt=0.0, le=1.0)

    def apply(self, scene: Scene, draws: Random) -> None:
        scene.adjust(lambda pixels: np.stack([_equalising(pixels[..., c]) for c in range(3)], axis=1))

    def takes(self, mode: str) -> bool:
        """See `Operation.takes`."""
        return mode != "1"


class HSVShifting(Operation):
    """Shift hue, and scale and shift saturation and value, each by an amount drawn from its range.

    Augmentor's class `Augmentor.Operations.HSVShifting`, which no method of its pipeline adds.
    """

    name = "hsv_shifting"
    hue_shift: float = Field(ge=0.0, le=255.0)
    saturation_scale: float = Field(ge=0.0, le=255.0)
    saturation_shift: float = Field(ge=0.0, le=255.0)
    value_scale: float = Field(ge=0.0, le=255.0)
    value_shift: float = Field(ge=0.0, le=255.0)

    def apply(self, scene: Scene, draws: Random) -> None:
        level = np.arange(256) / 255.0

        def spread(scale: float, shift: float) -> np.ndarray:
            scaled = level * draws.uniform(1 / (1 + scale), 1 + scale)
            return scaled + draws.uniform(-shift, shift)

        channels = (
            level + draws.uniform(-self.hue_shift, self.hue_shift),
            spread(self.saturation_scale, self.saturation_shift),
            spread(self.value_scale, self.value_shift),
        )
        table = np.concatenate([np.round(channel.clip(0, 1) * 255) for channel in channels]).astype(int).tolist()

        def shifted(pixels: UInt8Array) -> UInt8Array:
            return np.asarray(Image.fromarray(pixels).convert("HSV").point(table).convert("RGB"))

        scene.repaint(_each(shifted))
        scene.mode = "RGB"


class RandomErasing(Operation):
    """Cover a rectangle with noise, whose sides are at most `rectangle_area` times the image's."""

    name = "random_erasing"
    rectangle_area: float = Field(ge=0.01, le=1.0)

    def apply(self, scene: Scene, draws: Random) -> None:
        width, height = (_side(side, self.rectangle_area, draws) for side in (scene.width, scene.height))
        left, top = draws.randint(0, scene.width - width), draws.randint(0, scene.height - height)
        # As fine as the original's pixels are, up to a size at which no model sees grains any more.
        rows, columns = min(height, _FINEST_NOISE), min(width, _FINEST_NOISE)
        noise = _noise(rows, columns, scene.mode, draws)

        def erase(pixels: UInt8Array, pixel_map: PixelMap) -> UInt8Array:
            inside = ~pixel_map.outside(left, top, left + width, top + height)
            if not inside.any():
                return pixels
            part = _extent(inside, axis=0), _extent(inside, axis=1)
            across, down = pixel_map.steps()
            coarse = max(round(min(height / down, rows)), 1), max(round(min(width / across, columns)), 1)
            seen = resize(noise, coarse)
            on_noise = scaling(seen.shape[1] / width, seen.shape[0] / height) @ shift(-left, -top)
            erased = pixels.copy()
            erased[part][inside[part]] = pixel_map.part(*part).then(on_noise).sample(seen)[inside[part]]
            return erased

        scene.repaint(erase)


OPERATIONS: tuple[type[Operation], ...] = (
    BlackAndWhite,
    Greyscale,
    HistogramEqualisation,
    HSVShifting,
    Invert,
    RandomBrightness,
    RandomColor,
    RandomContrast,
    RandomErasing,
)


def _each(change: Callable[[UInt8Array], UInt8Array]) -> Callable[[UInt8Array, PixelMap], UInt8Array]:
    return lambda pixels, _: change(pixels)


def _blend(other: float | UInt8Array, pixels: np.ndarray, factor: float) -> UInt8Array:
    """Go from one image towards another, or beyond it, as `PIL.Image.blend` does: single precision, cut off."""
    other = np.asarray(other, np.float32)
    blended: UInt8Array = (other + np.float32(factor) * (pixels - other)).clip(0, 255).astype(np.uint8)
    return blended


def _luma(pixels: UInt8Array) -> UInt8Array:
    """Return ITU-R BT.601 luma, [rows, columns]; OpenCV's is a level off for some colours."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _grey(pixels: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.cvtColor(_luma(pixels), cv2.COLOR_GRAY2RGB), np.uint8)


def _equalising(channel: UInt8Array) -> UInt8Array:
    counts = np.bincount(channel.ravel(), minlength=256)
    present = counts[counts > 0]
    step = int(present.sum() - present[-1]) // 255
    if len(present) <= 1 or not step:
        return np.arange(256, dtype=np.uint8)
    below = np.cumsum(counts) - counts
    return ((step // 2 + below) // step).clip(0, 255).astype(np.uint8)


def _noise(rows: int, columns: int, mode: str, draws: Random) -> UInt8Array:
    """Draw uint8 [rows, columns, 3]: on a grey image grey, on a black and white one dithered to that."""
    if mode == "RGB":
        return np.frombuffer(draws.randbytes(rows * columns * 3), np.uint8).reshape(rows, columns, 3)
    grey = np.frombuffer(draws.randbytes(rows * columns), np.uint8).reshape(rows, columns)
    return np.asarray(Image.fromarray(grey).convert(mode).convert("RGB"))


def _side(side: int, area: float, draws: Random) -> int:
    largest = int(side * area)
    return max(draws.randint(min(int(side * 0.1), largest), largest), 1)


def _extent(inside: npt.NDArray[np.bool_], axis: int) -> slice:
    positions = inside.nonzero()[axis]
    return slice(int(positions.min()), int(positions.max()) + 1)
