"""Augmentor's operations, drawn from a seed that belongs to the image.

Augmentor draws from the global random state of its process, so what an image becomes depends on which images went
before it. Here the state is set from (seed, epoch, image_id, draw) before each image: the same image gets the same
pixels on any number of workers, in any order.
"""

import hashlib
import inspect
import random
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import Augmentor
import numpy as np
from PIL import Image

from dermaray.errors import ConfigError
from dermaray.images.decode import UInt8Array

OPERATIONS = (
    "black_and_white",
    "crop_by_size",
    "crop_centre",
    "crop_random",
    "flip_left_right",
    "flip_random",
    "flip_top_bottom",
    "gaussian_distortion",
    "greyscale",
    "histogram_equalisation",
    "invert",
    "random_brightness",
    "random_color",
    "random_contrast",
    "random_distortion",
    "random_erasing",
    "resize",
    "rotate",
    "rotate180",
    "rotate270",
    "rotate90",
    "rotate_random_90",
    "rotate_without_crop",
    "scale",
    "shear",
    "skew",
    "skew_corner",
    "skew_left_right",
    "skew_tilt",
    "skew_top_bottom",
    "zoom",
    "zoom_random",
)
"""The methods of `Augmentor.Pipeline` that a recipe may name."""


# Large enough for any grid that a distortion may lay over it.
_TRIAL_SIZE = (64, 64)


class Augmenter:
    """A recipe, ready to run.

    Args:
        recipe: One mapping per operation: `operation` names a method of `Augmentor.Pipeline`, the other keys are that
            method's arguments, `probability` among them.
        seed: The run's seed.

    Raises:
        ConfigError: An operation is unknown, an argument is unknown or missing, or Augmentor refuses a value.
    """

    def __init__(self, recipe: Sequence[dict[str, Any]], seed: int) -> None:
        self._seed = seed
        self._steps = [_build_step(step) for step in recipe]

    def __call__(self, pixels: UInt8Array, image_id: str, epoch: int, draw: int = 0) -> UInt8Array:
        """Augment one image.

        Args:
            pixels: uint8 [height, width, 3].
            image_id: Together with `epoch`, `draw` and the seed, all that the outcome depends on.
            epoch: The epoch, from 0.
            draw: Tells repetitions of an image within one epoch apart.

        Returns:
            uint8 [height, width, 3], of the size that came in.
        """
        if not self._steps:
            return pixels
        state = _seed_of(self._seed, epoch, image_id, draw)
        # A generator of its own: a copy of the one below would make whether an operation runs decide what it does.
        rng = random.Random(f"whether {state}")
        # Augmentor's operations draw from both global generators.
        random.seed(state)
        np.random.seed(state % 2**32)
        image = Image.fromarray(pixels)
        for operation, probability in self._steps:
            # Augmentor itself rounds its draw to tenths, which shifts every probability below one; this does not.
            if rng.random() < probability:
                image = operation([image])[0]
        return _restore(image, pixels.shape)


def check_recipe(recipe: Sequence[dict[str, Any]]) -> None:
    """Build a recipe's operations and drop them.

    Raises:
        ConfigError: See `Augmenter`.
    """
    for step in recipe:
        _build_step(step)


def _build_step(step: dict[str, Any]) -> tuple[Callable[[list[Image.Image]], list[Image.Image]], float]:
    arguments = dict(step)
    name = arguments.pop("operation", None)
    if name not in OPERATIONS:
        raise ConfigError(f"augment: operation {name!r} is unknown. Augmentor has: {', '.join(OPERATIONS)}")
    known = _arguments_of(name)
    unknown = sorted(set(arguments) - set(known))
    missing = sorted(a for a, required in known.items() if required and a not in arguments)
    if unknown or missing:
        problem = f"has no argument {unknown[0]!r}" if unknown else f"needs {missing[0]!r}"
        raise ConfigError(f"augment: {name} {problem}. It takes: {', '.join(known)}")
    try:
        pipeline = Augmentor.Pipeline()
        getattr(pipeline, name)(**arguments)
        (operation,) = pipeline.operations
        probability = float(operation.probability)
        if not 0.0 <= probability <= 1.0:
            raise ValueError("probability must be between 0 and 1.")
        # Augmentor checks some values, and crashes on others only when it meets an image.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            operation.perform_operation([Image.new("RGB", _TRIAL_SIZE)])
    except Exception as error:
        raise ConfigError(f"augment: {name}: {error} Received: {arguments}") from error
    return operation.perform_operation, probability


@cache
def _arguments_of(name: str) -> dict[str, bool]:
    """Return {argument: whether it is required} of one of Augmentor's operations."""
    parameters = list(inspect.signature(getattr(Augmentor.Pipeline, name)).parameters.values())[1:]
    return {p.name: p.default is inspect.Parameter.empty for p in parameters}


def _seed_of(seed: int, epoch: int, image_id: str, draw: int) -> int:
    """Mix what identifies a draw into 64 bits; Python's own hash changes from process to process."""
    key = f"{seed}\0{epoch}\0{image_id}\0{draw}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def _restore(image: Image.Image, shape: tuple[int, ...]) -> UInt8Array:
    """Return to the size and channels that went in, which crops, resizing and greyscale change."""
    height, width = shape[:2]
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)
