"""python benchmarks/decode.py [--rounds 9] [--model DIR [--images DIR [--enlarge 3]]]   (15 s; a model adds 30 s)

How long each decoder takes, and what scaled decoding does to a model's answers. Prints the tables of docs/decoding.md.

The files are made from drawings. All runs on one CPU core. The sides of a row take turns within each round, so that
other load on the machine meets them alike; a cell is the median of the rounds, and how many times as fast as the first
side that is. `equal` tells whether OpenCV's pixels are Pillow's.
"""

import argparse
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from dermaray.data.source import is_image_name
from dermaray.data.synthetic import render_lesion
from dermaray.errors import DermarayError
from dermaray.images.decode import decode_image
from dermaray.images.resize import UInt8Array
from dermaray.images.spec import InputSpec
from dermaray.labels import LABEL_SETS

Side = Callable[[], Any]

# Height, width, and the scale at which a picture of that size is decoded for 180x180 pixels.
SIZES = ((384, 512, 2), (450, 600, 2), (768, 1024, 4), (2000, 3000, 8))
OTHERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PNG", "PNG", {}),
    ("WebP", "WEBP", {"quality": 90}),
    ("WebP, lossless", "WEBP", {"lossless": True}),
    ("TIFF", "TIFF", {}),
    ("TIFF, LZW", "TIFF", {"compression": "tiff_lzw"}),
    ("BMP", "BMP", {}),
)
SPEC = InputSpec()
EXACT = SPEC.model_copy(update={"scaled_decoding": False})
COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
MIN_SECONDS = 0.02
BATCH = 50


def by_pillow(data: bytes, scaled: bool = False) -> UInt8Array:
    """Decode by Pillow: uint8 [rows, columns, 3]."""
    with Image.open(io.BytesIO(data)) as image:
        if scaled:
            image.draft(None, (SPEC.width, SPEC.height))
        grey = image.mode.startswith("I;16")
        pixels = np.asarray(image if grey or image.mode == "RGB" else image.convert("RGB"))
    return np.repeat((pixels >> 8).astype(np.uint8)[..., None], 3, axis=2) if grey else pixels


def by_opencv(data: bytes, flags: int = COLOUR) -> UInt8Array:
    """Decode by OpenCV: uint8 [rows, columns, 3], RGB whatever the flags are called."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return pixels if flags == COLOUR else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def measure(sides: dict[str, Side], rounds: int) -> dict[str, float]:
    """Return the milliseconds that one call of each side takes, the median of the rounds."""
    calls: dict[str, int] = {}
    for name, side in sides.items():
        side()
        began = time.perf_counter()
        side()
        calls[name] = max(1, round(MIN_SECONDS / (time.perf_counter() - began)))
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            for _ in range(calls[name]):
                side()
            taken[name].append((time.perf_counter() - began) / calls[name] * 1000)
    return {name: median(times) for name, times in taken.items()}


def row(label: str, times: dict[str, float], *more: str) -> str:
    """Return a row of a Markdown table: each side's milliseconds, and how many times as fast as the first it is."""
    first, *_ = times.values()
    cells = [f"{t:.2f}" if i == 0 else f"{t:.2f} ({first / t:.2f}x)" for i, t in enumerate(times.values())]
    return f"| {' | '.join([label, *cells, *more])} |"


def head(*names: str) -> Iterator[str]:
    """Yield the two lines that begin a Markdown table."""
    yield f"| {' | '.join(names)} |"
    yield f"| {' | '.join('---' for _ in names)} |"


def jpeg_sides(height: int, width: int, scale: int) -> dict[str, Side]:
    """Return the sides that decode a JPEG of that size, in full and at 1/`scale`."""
    data = encode(Image.fromarray(render_lesion("nevus", 3, (height, width))), "JPEG", quality=90)
    scaled = {"min_height": -(-height // scale), "min_width": -(-width // scale)}
    return {
        "Pillow": lambda: by_pillow(data),
        "Pillow, draft": lambda: by_pillow(data, scaled=True),
        "simplejpeg": lambda: simplejpeg.decode_jpeg(data, "RGB", strict=True),
        "simplejpeg, scaled": lambda: simplejpeg.decode_jpeg(data, "RGB", strict=True, **scaled),
        "OpenCV": lambda: by_opencv(data),
        "OpenCV, reduced": lambda: by_opencv(data, REDUCED[scale]),
        "`decode_image`, full": lambda: decode_image(data, EXACT),
        "`decode_image`, scaled": lambda: decode_image(data, SPEC),
    }


def jpeg_table(rounds: int) -> Iterator[str]:
    """Yield the lines of the table of JPEG decoders and of `decode_image`."""
    for i, (height, width, scale) in enumerate(SIZES):
        sides = jpeg_sides(height, width, scale)
        if i == 0:
            yield from head("JPEG", "scale", *sides)
        yield row(f"{width}x{height} | 1/{scale}", measure(sides, rounds))


def other_table(rounds: int) -> Iterator[str]:
    """Yield the lines of the table of the other formats."""
    yield from head("600x450", "Pillow", "OpenCV", "`decode_image`", "equal")
    colour = Image.fromarray(render_lesion("nevus", 3, (450, 600)))
    grey = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) << 8 | 0xC3)
    files = [(label, encode(colour, form, **options)) for label, form, options in OTHERS]
    files += [(f"{form}, 16-bit grey", encode(grey, form)) for form in ("PNG", "TIFF")]
    for label, data in files:
        sides: dict[str, Side] = {
            "Pillow": lambda d=data: by_pillow(d),
            "OpenCV": lambda d=data: by_opencv(d),
            "`decode_image`": lambda d=data: decode_image(d, SPEC),
        }
        equal = "yes" if np.array_equal(by_pillow(data), by_opencv(data)) else "no"
        yield row(label, measure(sides, rounds), equal)


def files_of(images: Path | None, count: int, enlarge: int) -> list[bytes]:
    """Return `count` files drawn from a folder, each `enlarge` times as large; of no folder, drawings of 600x450."""
    if images is None:
        labels = LABEL_SETS["kaggle9"].classes
        drawings = (render_lesion(labels[i % len(labels)], 9000 + i, (450, 600)) for i in range(count))
        return [encode(Image.fromarray(drawing), "JPEG", quality=90) for drawing in drawings]
    found = sorted(p for p in images.rglob("*") if is_image_name(p))
    files = [p.read_bytes() for p in random.Random(0).sample(found, min(count, len(found)))]
    if enlarge == 1:
        return files
    pictures = (Image.fromarray(by_pillow(data)) for data in files)
    larger = (p.resize((p.width * enlarge, p.height * enlarge), Image.Resampling.LANCZOS) for p in pictures)
    return [encode(picture, "JPEG", quality=90) for picture in larger]


def effect_table(model: Path, files: list[bytes]) -> Iterator[str]:
    """Yield the lines of the table of what scaled decoding does to a model's probabilities.

    Of images that are decoded in full either way it says nothing, so they are counted and left out.
    """
    from dermaray.models.artifact import open_artifact
    from dermaray.models.predictor import Predictor

    predictor = Predictor(open_artifact(model))
    ways = [predictor.artifact.input_spec.model_copy(update={"scaled_decoding": way}) for way in (True, False)]
    answers: list[list[Any]] = [[], []]
    levels: list[float] = []
    for i in range(0, len(files), BATCH):
        scaled, full = (np.stack([decode_image(data, way).pixels for data in files[i : i + BATCH]]) for way in ways)
        differs = (scaled != full).any(axis=(1, 2, 3))
        levels.extend(np.abs(scaled[differs].astype(int) - full[differs]).mean(axis=(1, 2, 3)))
        for found, pixels in zip(answers, (scaled, full), strict=True):
            found.append(predictor.probabilities(pixels[differs]))
    scaled, full = (np.concatenate(found).astype(np.float64) for found in answers)
    yield f"{model}: scaled decoding changes the pixels of {len(levels)} of {len(files)} images."
    if not levels:
        yield "Nothing can be said of its effect: these images are too small for this model's input."
        return
    apart = np.abs(scaled - full)
    kinds = {"any class": apart}
    if predictor.artifact.label_set.melanoma_index is not None:
        kinds["melanoma"] = apart[:, predictor.artifact.label_set.melanoma_index]
    yield f"In those, by {np.mean(levels):.2f} grey levels in the mean, and the probabilities by:\n"
    yield from head("", "mean", "95 % are below", "largest")
    for name, values in kinds.items():
        yield f"| {name} | {values.mean():.4f} | {np.quantile(values, 0.95):.4f} | {values.max():.4f} |"
    changed = int((scaled.argmax(1) != full.argmax(1)).sum())
    yield f"\nThe likeliest class is another in {changed} of {len(levels)}."


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="How long each decoder takes, and what scaled decoding changes.")
    parser.add_argument("--rounds", type=int, default=9, help="of each row, 5 or more (default: 9)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a trained model: also compare its probabilities")
    parser.add_argument("--images", type=Path, metavar="DIR", help="for --model (default: drawings of 600x450)")
    parser.add_argument("--enlarge", type=int, default=1, metavar="N", help="make those N times as large (default: 1)")
    parser.add_argument("--count", type=int, default=500, help="how many of them (default: 500)")
    args = parser.parse_args()
    if args.rounds < 5 or args.enlarge < 1 or args.count < 1:
        parser.error("--rounds must be 5 or more, --enlarge and --count 1 or more")
    if args.images is not None and not any(is_image_name(p) for p in args.images.rglob("*")):
        parser.error(f"--images holds no image. Received: {args.images}")
    # Where there are more cores, the last is the least busy; Linux alone can bind a process to one.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    try:
        for line in jpeg_table(args.rounds):
            print(line, flush=True)
        print()
        for line in other_table(args.rounds):
            print(line, flush=True)
        if args.model is not None:
            print()
            for line in effect_table(args.model, files_of(args.images, args.count, args.enlarge)):
                print(line, flush=True)
    except DermarayError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
