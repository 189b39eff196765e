"""python -m benchmarks.parity [--images DIR]

How far dermaray's own engine is from the Augmentor package, operation by operation, at the same drawn parameters: what
the package draws is recorded and given to the operation of the same name. Prints the table of docs/augmentation.md.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from Augmentor import Operations as package
from PIL import Image

from dermaray.augmentation.augmentor import pipeline_of
from dermaray.augmentation.recipe import parse_recipe
from dermaray.augmentation.rendering import render
from dermaray.augmentation.scene import Scene
from dermaray.data.synthetic import render_lesion
from dermaray.images.resize import UInt8Array, frame_shape, resize, to_frame
from dermaray.images.spec import InputSpec

SIZE = (384, 512)
MODEL = InputSpec(height=180, width=180)
DRAWS = 8

_AREA = {"percentage_area": 0.7}
_FACTORS = {"min_factor": 0.6, "max_factor": 1.4}
_GRID = {"grid_width": 5, "grid_height": 4, "magnitude": 8}
_SKEW = {"magnitude": 0.4}
_TURN = {"max_left_rotation": 20, "max_right_rotation": 20}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "random_brightness": _FACTORS,
    "random_contrast": _FACTORS,
    "random_color": _FACTORS,
    "hsv_shifting": {
        "hue_shift": 0.1,
        "saturation_scale": 0.3,
        "saturation_shift": 0.1,
        "value_scale": 0.2,
        "value_shift": 0.1,
    },
    "greyscale": {},
    "black_and_white": {"threshold": 128},
    "invert": {},
    "histogram_equalisation": {},
    "random_erasing": {"rectangle_area": 0.3},
    "flip_left_right": {},
    "flip_top_bottom": {},
    "flip_random": {},
    "rotate90": {},
    "rotate180": {},
    "rotate270": {},
    "rotate_random_90": {},
    "rotate": _TURN,
    "rotate_without_crop": _TURN,
    "zoom": {"min_factor": 0.8, "max_factor": 1.5},
    "zoom_random": _AREA,
    "crop_by_size": {"width": 300, "height": 200},
    "crop_centre": _AREA,
    "crop_random": _AREA,
    "resize": {"width": 300, "height": 250},
    "scale": {"scale_factor": 1.5},
    "shear": {"max_shear_left": 10, "max_shear_right": 10},
    "skew": _SKEW,
    "skew_tilt": _SKEW,
    "skew_left_right": _SKEW,
    "skew_top_bottom": _SKEW,
    "skew_corner": _SKEW,
    "random_distortion": _GRID,
    "gaussian_distortion": {**_GRID, "corner": "ul", "method": "out"},
}
"""Every operation, with the parameters that it is compared at."""


class _Recorder:
    """Stands in for `random` and `numpy.random` in the package, and remembers what was drawn."""

    def __init__(self, seed: int) -> None:
        self.drawn: list[Any] = []
        self._random, self._numpy = random.Random(seed), np.random.default_rng(seed)

    def _keep(self, value: Any) -> Any:
        self.drawn.append(value)
        return value

    def randint(self, a: int, b: int) -> int:
        return self._keep(self._random.randint(a, b))

    def uniform(self, a: float, b: float) -> float:
        # The package rounds some of these to hundredths.
        return self._keep(round(self._random.uniform(a, b), 2))

    def choice(self, items: Sequence[Any]) -> Any:
        return self._keep(self._random.choice(items))

    def normal(self, mean: float, deviation: float, size: int) -> np.ndarray:
        return np.full(size, self._keep((deviation, self._numpy.normal(mean, deviation)))[1])

    def rand(self, *shape: int) -> np.ndarray:
        return self._keep(self._numpy.random(shape))


class _NumpyWith:
    """NumPy, but for its random numbers."""

    def __init__(self, recorder: _Recorder) -> None:
        self.random = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class Replay:
    """Gives an operation of dermaray what the package's has drawn, in the same order."""

    def __init__(self, operation: str, drawn: Sequence[Any]) -> None:
        self.left = list(drawn)
        if operation == "random_erasing":  # The package swaps the sides of the rectangle.
            self.left[:2] = reversed(self.left[:2])
        if operation == "shear":  # It cuts the angle to whole degrees, and adds one to all but one of them.
            degrees = int(self.left[0])
            self.left[0] = degrees if degrees == -1 else degrees + 1

    def _next(self, *_: Any) -> Any:
        return self.left.pop(0)

    randint = uniform = choice = _next

    def gauss(self, mean: float, deviation: float) -> float:
        """Return a normal draw."""
        theirs, value = self._next()
        assert mean == 0
        assert abs(deviation - theirs) < 1e-9 * theirs, f"deviation {deviation}, in the package {theirs}"
        return float(value)

    def randbytes(self, n: int) -> bytes:
        """Return noise."""
        noise = np.uint8(self._next() * 255).tobytes()
        assert len(noise) == n
        return noise


@contextmanager
def _recorded(recorder: _Recorder) -> Iterator[None]:
    before = package.random, package.np
    package.random, package.np = recorder, _NumpyWith(recorder)
    try:
        yield
    finally:
        package.random, package.np = before


def theirs_and_ours(steps: Sequence[tuple[str, dict[str, Any]]], pixels: UInt8Array, seed: int) -> tuple[Any, Scene]:
    """Run operations in the package, and record them in a scene at the same drawn parameters.

    Returns:
        The package's image, uint8 [rows, columns, 3], and the scene, which `render` renders at any size.
    """
    operations = parse_recipe([{"operation": name, "probability": 1.0, **arguments} for name, arguments in steps])
    image, scene = Image.fromarray(pixels), Scene(*pixels.shape[:2])
    for index, (operation, packaged) in enumerate(zip(operations, pipeline_of(operations).operations, strict=True)):
        if not operation.takes(image.mode):
            image, scene.mode = image.convert("RGB"), "RGB"
        recorder = _Recorder(seed + 1000 * index)
        with _recorded(recorder):
            image = packaged.perform_operation([image])[0]
        replay = Replay(operation.name, recorder.drawn)
        operation.apply(scene, replay)
        # Flips and quarter turns of a given direction draw one number in vain.
        assert len(replay.left) in (0, 1), f"{operation.name} draws other numbers than the package"
        assert image.mode == scene.mode, f"{operation.name} leaves another mode than the package"
    assert image.size == (scene.width, scene.height), f"{steps}: another size than the package's"
    return np.asarray(image.convert("RGB")), scene


def difference_as_it_is(name: str, pixels: UInt8Array, seed: int) -> float:
    """Return the mean absolute difference, in levels, at the size that the operation leaves."""
    theirs, scene = theirs_and_ours([(name, ARGUMENTS[name])], pixels, seed)
    spec = InputSpec.model_construct(height=theirs.shape[0], width=theirs.shape[1], resize="stretch")
    return _difference(render(scene, pixels, spec), theirs)


def difference_for_a_model(steps: Sequence[tuple[str, dict[str, Any]]], pixels: UInt8Array, seed: int) -> float:
    """Return the same at a model's size: reduced after the package ran, and for dermaray before."""
    theirs, scene = theirs_and_ours(steps, pixels, seed)
    frame = to_frame(pixels, frame_shape(pixels.shape[0], pixels.shape[1], MODEL), MODEL)
    return _difference(render(scene, frame, MODEL), resize(theirs, MODEL.shape[:2]))


def _difference(ours: UInt8Array, theirs: UInt8Array) -> float:
    return float(np.abs(ours.astype(int) - theirs).mean())


def _images(folder: Path | None) -> list[UInt8Array]:
    if folder is None:
        return [render_lesion(diagnosis, 1, SIZE) for diagnosis in ("nevus", "melanoma", "basal cell carcinoma")]
    files = sorted(folder.rglob("*.jpg"))[:8]
    return [np.asarray(Image.open(f).convert("RGB").resize(SIZE[::-1], Image.Resampling.LANCZOS)) for f in files]


def _over(images: Sequence[UInt8Array], measure: Callable[[UInt8Array, int], float]) -> str:
    values = [measure(pixels, seed) for pixels in images for seed in range(DRAWS)]
    return f"{np.mean(values):.2f} | {np.max(values):.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How far the fused engine is from the Augmentor package.")
    parser.add_argument("--images", type=Path, help="a folder of JPEGs; by default synthetic images are drawn")
    images = _images(parser.parse_args().images)
    print(f"{len(images)} images of {SIZE[1]}x{SIZE[0]} pixels, {DRAWS} draws each; differences in levels\n")
    print("| operation | same size: mean | largest | at 180x180: mean | largest |\n| --- | --- | --- | --- | --- |")
    for name, arguments in ARGUMENTS.items():
        same = _over(images, lambda pixels, seed, name=name: difference_as_it_is(name, pixels, seed))
        model = _over(images, lambda pixels, seed, step=(name, arguments): difference_for_a_model([step], pixels, seed))
        print(f"| `{name}` | {same} | {model} |")


if __name__ == "__main__":
    main()
