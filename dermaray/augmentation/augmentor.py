"""The Augmentor package: its pipelines from and to recipes, and the package as an engine, bugs included."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import Augmentor
import numpy as np
from Augmentor import Operations as package
from PIL import Image

from dermaray.augmentation.engines import seed_of
from dermaray.augmentation.operation import Operation
from dermaray.augmentation.recipe import OPERATIONS, parse_recipe
from dermaray.errors import ConfigError
from dermaray.images.resize import UInt8Array, fit, frame_shape, to_frame
from dermaray.images.spec import InputSpec


class AugmentorEngine:
    """Runs operations as the package does, on one image after the other.

    Reproduced are its bugs: a probability below 1 becomes floor(10 p) / 10 + 0.05, since it rounds its draw to tenths;
    a rotation has whole degrees; an erased rectangle has its sides swapped. An image that was made grey, which the
    package leaves with one channel, has three again before an operation that fails on one. Not reproduced is that what
    an image becomes depends on the images before it: the global generators, which the package draws from, are set anew
    for every image. Two threads of one process would still take each other's numbers.

    Args:
        operations: See `parse_recipe`.
        spec: The model's input.
        seed: The run's seed.

    Raises:
        ConfigError: The package refuses a value, or cannot use it.
    """

    def __init__(self, operations: Sequence[Operation], spec: InputSpec, seed: int) -> None:
        self._steps = list(zip(operations, pipeline_of(operations).operations, strict=True))
        self._spec, self._seed = spec, seed

    def __call__(
        self, frame: UInt8Array, size: tuple[int, int], image_id: str, epoch: int, draw: int = 0
    ) -> UInt8Array:
        """See `dermaray.augmentation.engines.Augmenter`; a frame that is smaller than its image is enlarged before."""
        image = Image.fromarray(frame)
        if image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.BICUBIC)
        with _seeded(seed_of(self._seed, epoch, image_id, draw)):
            for operation, packaged in self._steps:
                if round(random.uniform(0, 1), 1) <= packaged.probability:
                    image = _perform(packaged, image if operation.takes(image.mode) else image.convert("RGB"))
        pixels = np.array(image.convert("RGB"))
        return fit(to_frame(pixels, frame_shape(pixels.shape[0], pixels.shape[1], self._spec), self._spec), self._spec)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Set both global generators for a while."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _perform(operation: Any, image: Image.Image) -> Image.Image:
    try:
        return operation.perform_operation([image])[0]  # type: ignore[no-any-return]
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        size = f"{image.width}x{image.height}"
        raise ConfigError(
            f"augment: Augmentor's {type(operation).__name__} fails on an image of {size}: {error}"
        ) from error


def pipeline_of(operations: Sequence[Operation]) -> Augmentor.Pipeline:
    """Return a pipeline of the package, without images, that has a recipe's operations.

    Raises:
        ConfigError: The package refuses a value, or cannot use it.
    """
    pipeline = Augmentor.Pipeline()
    for operation in operations:
        arguments = operation.model_dump()
        try:
            if operation.name == "hsv_shifting":
                pipeline.add_operation(package.HSVShifting(**arguments))
            else:
                getattr(pipeline, operation.name)(**arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"augment: {operation.name}: Augmentor says: {error} Received: {arguments}") from error
        if not hasattr(Image, arguments.get("resample_filter", "BICUBIC")):
            raise ConfigError(
                "augment: resize: Augmentor's filter ANTIALIAS is gone from Pillow. Use BICUBIC or BILINEAR"
            )
    return pipeline


def recipe_of(pipeline: Augmentor.Pipeline) -> list[dict[str, Any]]:
    """Return the recipe that has a pipeline's operations, in a form that YAML can hold.

    Args:
        pipeline: An `Augmentor.Pipeline`; its images are of no concern.

    Raises:
        ConfigError: An operation is none of the package's, is one that fails on every image (`Custom`, `Mixup`), or
            has a value out of its range.
    """
    recipe = [_step_of(operation) for operation in pipeline.operations]
    parse_recipe(recipe)
    return recipe


_QUARTERS = {90: "rotate90", 180: "rotate180", 270: "rotate270", -1: "rotate_random_90"}
_FLIPS = {"LEFT_RIGHT": "flip_left_right", "TOP_BOTTOM": "flip_top_bottom", "RANDOM": "flip_random"}
_SKEWS = {
    "RANDOM": "skew",
    "TILT": "skew_tilt",
    "TILT_LEFT_RIGHT": "skew_left_right",
    "TILT_TOP_BOTTOM": "skew_top_bottom",
    "CORNER": "skew_corner",
}

# Which operation of a recipe each of the package's classes is; None where it has none for these values.
_NAMES: dict[type, Callable[[Any], str | None]] = {
    package.BlackAndWhite: lambda _: "black_and_white",
    package.Crop: lambda _: "crop_by_size",
    package.CropPercentage: lambda operation: "crop_centre" if operation.centre else "crop_random",
    package.CropRandom: lambda _: "crop_random",
    package.Distort: lambda _: "random_distortion",
    package.Flip: lambda operation: _FLIPS.get(operation.top_bottom_left_right),
    package.GaussianDistortion: lambda _: "gaussian_distortion",
    package.Greyscale: lambda _: "greyscale",
    package.HistogramEqualisation: lambda _: "histogram_equalisation",
    package.HSVShifting: lambda _: "hsv_shifting",
    package.Invert: lambda _: "invert",
    package.RandomBrightness: lambda _: "random_brightness",
    package.RandomColor: lambda _: "random_color",
    package.RandomContrast: lambda _: "random_contrast",
    package.RandomErasing: lambda _: "random_erasing",
    package.Resize: lambda _: "resize",
    package.Rotate: lambda operation: _QUARTERS.get(operation.rotation),
    package.RotateRange: lambda _: "rotate",
    package.RotateStandard: lambda _: "rotate_without_crop",
    package.Scale: lambda _: "scale",
    package.Shear: lambda _: "shear",
    package.Skew: lambda operation: _SKEWS.get(operation.skew_type),
    package.Zoom: lambda _: "zoom",
    package.ZoomGroundTruth: lambda _: "zoom",
    package.ZoomRandom: lambda _: "zoom_random",
}


def _step_of(operation: Any) -> dict[str, Any]:
    name = _NAMES.get(type(operation), lambda _: None)(operation)
    if name is None:
        received = ", ".join(f"{key}={value!r}" for key, value in vars(operation).items())
        known = ", ".join(sorted({kind.__name__ for kind in _NAMES}))
        raise ConfigError(
            f"no operation of a recipe is Augmentor's {type(operation).__name__}({received}). It converts: {known}"
        )
    values = dict(vars(operation))
    if "randomise" in values:
        values["randomise_percentage_area"] = values["randomise"]
    for side in ("max_left_rotation", "max_right_rotation"):
        if side in values:
            values[side] = abs(values[side])  # The package keeps what is to the left as a negative number.
    arguments = {key: _plain(values[key]) for key in OPERATIONS[name].model_fields if key in values}
    for flag in {"expand", "centre", "randomise_percentage_area"} & set(arguments):
        arguments[flag] = bool(arguments[flag])
    return {"operation": name, **arguments}


def _plain(value: Any) -> Any:
    """Return a value as YAML has it; whole numbers as such, whoever computed them."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
