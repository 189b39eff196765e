"""Augmentation by a recipe: what an image becomes depends on (seed, epoch, image_id, draw) alone.

So the same image gets the same pixels on any number of workers, in blocks of any size and in any order. Two engines
have one interface: `fused` is dermaray's own; `augmentor` is the Augmentor package itself, to compare with.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from dermaray.augmentation.operation import Operation
from dermaray.augmentation.recipe import parse_recipe
from dermaray.augmentation.rendering import render
from dermaray.augmentation.scene import Scene
from dermaray.images.resize import UInt8Array, fit
from dermaray.images.spec import InputSpec

Engine = Literal["fused", "augmentor"]
"""See `build_augmenter`."""


class Augmenter(Protocol):
    """A recipe, ready to run."""

    def __call__(
        self, frame: UInt8Array, size: tuple[int, int], image_id: str, epoch: int, draw: int = 0
    ) -> UInt8Array:
        """Augment one image.

        Args:
            frame: The picture as `decode_frame` gives it, uint8 [rows, columns, 3]: the engine `fused` takes frames
                for the model's input, `augmentor` pictures as they are (`takes_whole_pictures`).
            size: (height, width) of the original image, in whose pixels operations count.
            image_id: Together with `epoch`, `draw` and the seed, all that the outcome depends on.
            epoch: The epoch, from 0.
            draw: Tells repetitions of an image within one epoch apart.

        Returns:
            What the model takes, uint8 [*spec.shape]; without operations it may be the frame itself.
        """
        ...


def build_augmenter(
    recipe: Sequence[Mapping[str, Any]], spec: InputSpec, seed: int, engine: Engine = "fused"
) -> Augmenter:
    """Return a recipe that is ready to run; without operations it is `fit`.

    Args:
        recipe: See `dermaray.augmentation.recipe.parse_recipe`.
        spec: The model's input.
        seed: The run's seed.
        engine: `fused` composes all geometry to one interpolation and colours to tables, at the model's size.
            `augmentor` runs the package on frames of the original size, some thirty times slower, with its bugs.

    Raises:
        ConfigError: See `parse_recipe`; or the package refuses a value.
    """
    operations = parse_recipe(recipe)
    if not operations:
        return lambda frame, size, image_id, epoch, draw=0: fit(frame, spec)
    if engine == "augmentor":
        from dermaray.augmentation.augmentor import AugmentorEngine

        return AugmentorEngine(operations, spec, seed)
    return _FusedEngine(operations, spec, seed)


def takes_whole_pictures(recipe: Sequence[Mapping[str, Any]], engine: Engine) -> bool:
    """Tell whether an engine wants pictures at their own size rather than frames for the model's input."""
    return engine == "augmentor" and bool(recipe)


class _FusedEngine:
    """Operations of which each records what it does; then the image is made once."""

    def __init__(self, operations: Sequence[Operation], spec: InputSpec, seed: int) -> None:
        self._operations, self._spec, self._seed = operations, spec, seed

    def __call__(
        self, frame: UInt8Array, size: tuple[int, int], image_id: str, epoch: int, draw: int = 0
    ) -> UInt8Array:
        draws = random.Random(seed_of(self._seed, epoch, image_id, draw))
        scene = Scene(*size)
        for operation in self._operations:
            if draws.random() < operation.probability:
                # Where the package would fail, the image has colours again.
                if not operation.takes(scene.mode):
                    scene.mode = "RGB"
                operation.apply(scene, draws)
        return render(scene, frame, self._spec)


def seed_of(seed: int, epoch: int, image_id: str, draw: int) -> int:
    """Mix what identifies a draw into 64 bits; Python's own hash changes from process to process."""
    key = f"{seed}\0{epoch}\0{image_id}\0{draw}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
