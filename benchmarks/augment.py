"""python -m benchmarks.augment [--images DIR] [--rounds 7] [--per-operation]

From the bytes of a 512x384 JPEG to an augmented 180x180 uint8 image, on one core: the Augmentor package (Pillow opens
the file, the pipeline runs, Pillow scales the result) against dermaray's fused engine, which gets the same recipe. Both
sides take turns on the same images in one run. Prints the tables of docs/augmentation.md.
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.parity import ARGUMENTS
from dermaray.augmentation.augmentor import pipeline_of
from dermaray.augmentation.engines import build_augmenter
from dermaray.augmentation.recipe import parse_recipe
from dermaray.data.synthetic import render_lesion
from dermaray.images.decode import decode_frame
from dermaray.images.resize import UInt8Array
from dermaray.images.spec import InputSpec

SIZE = (512, 384)
SPEC = InputSpec(height=180, width=180)
IMAGES = 24
SEVEN: tuple[dict[str, Any], ...] = (
    {"operation": "rotate", "max_left_rotation": 20, "max_right_rotation": 20},
    {"operation": "zoom", "min_factor": 1.05, "max_factor": 1.3},
    {"operation": "flip_random"},
    {"operation": "shear", "max_shear_left": 10, "max_shear_right": 10},
    {"operation": "skew", "magnitude": 0.3},
    {"operation": "random_brightness", "min_factor": 0.7, "max_factor": 1.3},
    {"operation": "random_contrast", "min_factor": 0.7, "max_factor": 1.3},
)
ELASTIC = {"operation": "random_distortion", "grid_width": 5, "grid_height": 4, "magnitude": 8}

Side = Callable[[bytes], UInt8Array]


def sides(recipe: Sequence[dict[str, Any]]) -> tuple[Side, Side]:
    """Return the package and dermaray, ready to run a recipe in which every operation is certain."""
    certain = [{**step, "probability": 1.0} for step in recipe]
    pipeline = pipeline_of(parse_recipe(certain))
    augment = build_augmenter(certain, SPEC, seed=0)
    draws = iter(range(10**9))

    def augmentor(data: bytes) -> UInt8Array:
        images = [Image.open(io.BytesIO(data)).convert("RGB")]
        for operation in pipeline.operations:
            images = operation.perform_operation(images)
        scaled = images[0].convert("RGB").resize((SPEC.width, SPEC.height), Image.Resampling.BILINEAR)
        return np.asarray(scaled, np.uint8)

    def dermaray(data: bytes) -> UInt8Array:
        frame = decode_frame(data, SPEC)
        return augment(frame.pixels, (frame.height, frame.width), "image", 0, next(draws))

    return augmentor, dermaray


def compare(recipe: Sequence[dict[str, Any]], files: Sequence[bytes], rounds: int) -> tuple[float, float, float]:
    """Return the median milliseconds per image of either side, and the median of the rounds' ratios."""
    measured: list[tuple[float, ...]] = []
    both = sides(recipe)
    for side in both:
        assert side(files[0]).shape == SPEC.shape
    for turn in range(rounds):
        times = {side: _milliseconds(side, files) for side in (both if turn % 2 else both[::-1])}
        measured.append((times[both[0]], times[both[1]], times[both[0]] / times[both[1]]))
    theirs, ours, ratio = (statistics.median(column) for column in zip(*measured, strict=True))
    return theirs, ours, ratio


def _milliseconds(side: Side, files: Sequence[bytes]) -> float:
    start = time.perf_counter()
    for data in files:
        side(data)
    return (time.perf_counter() - start) / len(files) * 1000


def _files(folder: Path | None) -> list[bytes]:
    if folder is None:
        pictures = [Image.fromarray(render_lesion("nevus", seed, SIZE[::-1])) for seed in range(IMAGES)]
    else:
        paths = sorted(folder.rglob("*.jpg"))[:IMAGES]
        if not paths:
            raise SystemExit(f"{folder} holds no .jpg")
        pictures = [Image.open(path).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS) for path in paths]
    return [_jpeg(picture) for picture in pictures]


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="The fused engine against the Augmentor package, on one core.")
    parser.add_argument("--images", type=Path, help="a folder of JPEGs; by default synthetic images are drawn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of either side, of which the median counts")
    parser.add_argument("--per-operation", action="store_true", help="every operation alone as well")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    files = _files(args.images)
    recipes: dict[str, Sequence[dict[str, Any]]] = {
        "seven operations": SEVEN,
        "and elastic distortion": (*SEVEN[:5], ELASTIC, *SEVEN[5:]),
    }
    if args.per_operation:
        recipes |= {f"`{name}`": ({"operation": name, **values},) for name, values in ARGUMENTS.items()}
    print(f"{len(files)} JPEGs of {SIZE[0]}x{SIZE[1]} pixels, {args.rounds} rounds, one core\n")
    print("| recipe | Augmentor, ms | fused, ms | times as fast |\n| --- | --- | --- | --- |")
    for name, recipe in recipes.items():
        theirs, ours, ratio = compare(recipe, files, args.rounds)
        print(f"| {name} | {theirs:.2f} | {ours:.2f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
