"""python -m benchmarks.out_of_distribution --model DIR --data MANIFEST [--split test]

How well `ood_score` tells 200 images that show no lesion from the images of a split: the AUC of all and of each kind
(scikit-image's photographs, drawn textures, noise, text), with a 95 % bootstrap interval in which images are drawn one
by one, whichever lesion they show; and how many are called strange.
"""

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from dermaray.data.manifest import Manifest
from dermaray.images.resize import UInt8Array
from dermaray.models.artifact import open_artifact
from dermaray.models.predictor import Predictor

PER_KIND = 50
SIDE = 224
RESAMPLES = 2000

PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "color.png", "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png"),
    *("microaneurysms.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "page.png", "phantom.png"),
    *("retina.jpg", "rocket.jpg"),
)

WORDS = ("lesion", "skin", "patient", "date", "image", "left", "right", "arm", "report", "clinic", "mole", "page", "of")


def photograph(number: int, rng: np.random.Generator) -> UInt8Array:
    """Return a photograph of scikit-image's, whole at first, then parts of it."""
    name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
    with Image.open(Path(skimage.__file__).parent / "data" / name) as file:
        image = file.convert("RGB")
    if number >= len(PHOTOGRAPHS):
        side = int(min(image.size) * rng.uniform(0.4, 0.9))
        left, top = (int(rng.integers(0, whole - side + 1)) for whole in image.size)
        image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((SIDE, SIDE)), np.uint8)


def texture(number: int, rng: np.random.Generator) -> UInt8Array:
    """Return stripes, a chessboard, rings, cells or clouds, in two colours."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - rng.random((2, 1, 1))
    angle, rate = rng.uniform(0, np.pi), rng.uniform(4, 40)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if number % 5 == 0:
        share = 0.5 + 0.5 * np.sin(2 * np.pi * rate * along)
    elif number % 5 == 1:
        share = (np.floor(rate * along) + np.floor(rate * across)) % 2
    elif number % 5 == 2:
        share = 0.5 + 0.5 * np.sin(2 * np.pi * rate * np.hypot(x, y))
    elif number % 5 == 3:
        centres = rng.uniform(-1, 1, (60, 2, 1, 1))
        share = np.sqrt(((centres - np.stack([y, x])) ** 2).sum(axis=1)).min(axis=0)
        share = share / share.max()
    else:
        share = gaussian_filter(rng.normal(size=(SIDE, SIDE)), rng.uniform(2, 12))
        share = (share - share.min()) / np.ptp(share)
    first, second = rng.integers(0, 256, (2, 3))
    return np.round(share[..., None] * first + (1 - share[..., None]) * second).astype(np.uint8)


def noise(number: int, rng: np.random.Generator) -> UInt8Array:
    """Return noise: even, grey, of single pixels, soft, or around the colour of skin."""
    shape = (SIDE, SIDE, 3)
    if number % 5 == 0:
        values = rng.uniform(0, 255, shape)
    elif number % 5 == 1:
        values = np.repeat(rng.normal(128, 60, (SIDE, SIDE, 1)), 3, axis=2)
    elif number % 5 == 2:
        values = np.where(rng.random((SIDE, SIDE, 1)) < 0.1, rng.choice([0, 255], shape), rng.integers(0, 256, 3))
    elif number % 5 == 3:
        values = 128 + 300 * gaussian_filter(rng.normal(size=shape), (3, 3, 0))
    else:
        values = np.array([200, 150, 130]) + rng.normal(0, rng.uniform(10, 50), shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def text(number: int, rng: np.random.Generator) -> UInt8Array:
    """Return words on paper."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(int(v) for v in rng.integers(200, 256, 3)))
    draw, size = ImageDraw.Draw(image), float(rng.uniform(8, 32))
    for top in range(2, SIDE, int(size * 1.4)):
        draw.text((3, top), " ".join(rng.choice(WORDS, 14)), tuple(rng.integers(0, 90, 3).tolist()), _font(size))
    return np.asarray(image.rotate(90 * (number % 4)), np.uint8)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


KINDS: dict[str, Callable[[int, np.random.Generator], UInt8Array]] = {
    "photographs": photograph,
    "textures": texture,
    "noise": noise,
    "text": text,
}


def strangers(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield kind and file of each image that shows no lesion."""
    for kind, draw in KINDS.items():
        rng = np.random.default_rng(seed)
        for number in range(PER_KIND):
            file = io.BytesIO()
            Image.fromarray(draw(number, rng)).save(file, "JPEG", quality=92)
            yield kind, file.getvalue()


def interval(lesions: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the AUC and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)

    def area(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
        return float(roc_auc_score(np.repeat([0, 1], [len(one), len(other)]), np.concatenate([one, other])))

    drawn = [area(rng.choice(lesions, len(lesions)), rng.choice(others, len(others))) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return area(lesions, others), float(low), float(high)


def main() -> None:
    """Score both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, required=True, metavar="MANIFEST")
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    predictor = Predictor(open_artifact(args.model.resolve()))
    uris = Manifest.read(args.data).rows(args.split)["uri"].to_pylist()
    lesions = np.array([predictor.predict(Path(uri).read_bytes()).ood_score for uri in uris])
    found = [(kind, predictor.predict(data).ood_score) for kind, data in strangers()]
    print(f"{len(lesions):,} images of lesions, {np.mean(lesions > 1):.1%} of them called strange\n")
    print("| images | number | called strange | AUC (95 % interval) |\n| --- | --- | --- | --- |")
    for kind in (*KINDS, "all"):
        scores = np.array([score for of, score in found if kind in (of, "all")])
        area, low, high = interval(lesions, scores)
        print(f"| {kind} | {len(scores)} | {np.mean(scores > 1):.1%} | {area:.3f} ({low:.3f} to {high:.3f}) |")


if __name__ == "__main__":
    main()
