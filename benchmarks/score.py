"""Bulk scoring against what people write for it: the same network, the same files, the same two cores.

    python -m benchmarks.score --images ../shared/data/ham10000/images [--files 4096] [--rounds 5]

Files are real photographs as JPEG of 600x450 and of 1024x768 pixels, alternately. The network is an EfficientNet-Lite0
at 160x160 pixels; with --size 192 --views 4 it is as large as that of the reference model. A round runs all sides one
after the other, each in a process of its own:

    directory   keras.utils.image_dataset_from_directory and model.predict
    loop        PIL and model.predict, an image at a time (on every eighth file)
    ray         ray.data.read_images and an actor that holds the Keras model, as Ray's documentation shows it
    daft        daft, with a class that holds the Keras model, where it is installed
    dermaray    dermaray score
    bfloat16    dermaray score --engine bfloat16, where OpenVINO is installed and the processor knows it
    int8        dermaray score --engine int8
    decode      dermaray's decoder alone, a process on each core
    network     LiteRT alone, a process on each core, on pixels that are in memory

A rate counts from when the first images are done to the end; what came before is the start. Figures are medians of the
rounds, and of their ratios.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from dermaray.models.openvino import knows_bfloat16

ROOT = Path(__file__).resolve().parents[1]
BATCH, CORES = 32, 2
SIZES = ((600, 450), (1024, 768))
CONFIG = """
name: benchmark
out: {folder}/model
data: {{manifest: {folder}/data}}
input: {{height: {size}, width: {size}}}
model: {{backbone: efficientnet_lite0, weights: imagenet}}
int8: true
views: {views}
training: {{epochs: 1, global_batch_size: 24}}
"""


class Clock:
    """When images were done; or, where that is known otherwise, their rate."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._done: list[tuple[float, int]] = []

    def tell(self, count: int) -> None:
        """Take the number of images that are done by now."""
        self._done.append((time.time(), count))

    def figures(self) -> dict[str, float]:
        """Return images a second, and when the first were done."""
        if self.rate is not None:
            return {"rate": self.rate, "began": 0.0}
        (began, before), (ended, images) = self._done[0], self._done[-1]
        return {"rate": (images - before) / (ended - began), "began": began}


def files_of(folder: Path) -> list[str]:
    """Return the files to score."""
    return sorted(map(str, (folder / "files").rglob("*.jpg")))


def size_of(folder: Path) -> int:
    """Return the height and width that the model takes."""
    return int((folder / "size").read_text())


def loaded(folder: Path) -> Any:
    """Return the Keras model."""
    import keras

    return keras.saving.load_model(folder / "model" / "model" / "model.keras", compile=False)


def directory(folder: Path, clock: Clock) -> None:
    """Score as Keras's guides do."""
    import keras

    class Tell(keras.callbacks.Callback):  # type: ignore[misc]
        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
            clock.tell((batch + 1) * BATCH)

    size = size_of(folder)
    dataset = keras.utils.image_dataset_from_directory(
        folder / "files", labels=None, image_size=(size, size), batch_size=BATCH, shuffle=False
    )
    loaded(folder).predict(dataset, callbacks=[Tell()], verbose=0)


def loop(folder: Path, clock: Clock) -> None:
    """Score an image at a time."""
    import numpy as np
    from PIL import Image

    model, size = loaded(folder), size_of(folder)
    for done, file in enumerate(files_of(folder)[::8]):
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize((size, size)))
        model.predict(pixels[None], verbose=0)
        clock.tell(done + 1)


def ray_data(folder: Path, clock: Clock) -> None:
    """Score as Ray's documentation does."""
    import ray

    class Predict:
        def __init__(self) -> None:
            self._model = loaded(folder)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"probabilities": self._model.predict_on_batch(batch["image"])}

    ray.init(include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    size = size_of(folder)
    images = ray.data.read_images(files_of(folder), size=(size, size), mode="RGB")
    scored = images.map_batches(Predict, batch_size=BATCH, concurrency=1)
    done = 0
    for batch in scored.iter_batches(batch_size=None):
        done += len(batch["probabilities"])
        clock.tell(done)


def daft_side(folder: Path, clock: Clock) -> None:
    """Score by Daft."""
    import daft
    import numpy as np
    from daft import DataType, col

    @daft.udf(return_dtype=DataType.list(DataType.float32()), batch_size=BATCH, concurrency=1)
    class Predict:
        def __init__(self) -> None:
            self._model = loaded(folder)

        def __call__(self, images: Any) -> list[Any]:
            found = self._model.predict_on_batch(np.stack(images.to_pylist()))
            return [list(map(float, row)) for row in found]

    table = daft.from_pydict({"path": files_of(folder)})
    size = size_of(folder)
    image = col("path").url.download().image.decode(mode="RGB").image.resize(size, size)
    done = 0
    for part in table.select(Predict(image).alias("probabilities")).to_arrow_iter():
        done += len(part)
        clock.tell(done)


def dermaray(folder: Path, clock: Clock, engine: str) -> None:
    """Score by dermaray."""
    from dermaray.scoring.watch import Watch
    from jobs.cli import main as command

    tell = Watch.tell

    def both(watch: Watch, count: int) -> None:
        clock.tell(count)
        tell(watch, count)

    Watch.tell = both  # type: ignore[method-assign]
    words = ["score", str(folder / "files"), "--model", str(folder / "model"), "--engine", engine, "--new"]
    if command([*words, "--out", str(folder / "scores")]):
        raise SystemExit("dermaray failed")


def alone(folder: Path, clock: Clock, work: Callable[[Path, int], float]) -> None:
    """Run work on each core, in processes of their own; each tells its rate."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(CORES) as pool:
        clock.rate = sum(pool.map(work, [folder] * CORES, range(CORES)))


def decode_alone(folder: Path, part: int) -> float:
    """Read and decode every other file; return images a second."""
    import cv2

    from dermaray.images.decode import decode_image
    from dermaray.models.artifact import open_artifact

    cv2.setNumThreads(1)
    files, spec = files_of(folder)[part::CORES], open_artifact(folder / "model").input_spec
    began = time.perf_counter()
    for file in files:
        decode_image(Path(file).read_bytes(), spec)
    return len(files) / (time.perf_counter() - began)


def network_alone(folder: Path, part: int) -> float:
    """Run the network of `dermaray score` on images that are in memory; return images a second."""
    import numpy as np

    from dermaray.models.artifact import open_artifact
    from dermaray.models.engines import open_engine

    artifact = open_artifact(folder / "model")
    engine = open_engine(artifact, "litert")
    pixels = np.random.default_rng(part).integers(0, 256, (BATCH, *artifact.input_spec.shape), np.uint8)
    batches = len(files_of(folder)) // CORES // BATCH // 2
    began = time.perf_counter()
    for _ in range(batches):
        engine(pixels)
    return batches * BATCH / (time.perf_counter() - began)


SIDES: dict[str, Callable[[Path, Clock], None]] = {
    "directory": directory,
    "loop": loop,
    "ray": ray_data,
    "daft": daft_side,
    "dermaray": lambda folder, clock: dermaray(folder, clock, "litert"),
    "bfloat16": lambda folder, clock: dermaray(folder, clock, "bfloat16"),
    "int8": lambda folder, clock: dermaray(folder, clock, "int8"),
    "decode": lambda folder, clock: alone(folder, clock, decode_alone),
    "network": lambda folder, clock: alone(folder, clock, network_alone),
}

NEEDED: dict[str, Callable[[], bool]] = {
    "daft": lambda: find_spec("daft") is not None,
    "bfloat16": knows_bfloat16,
}
"""Whether there is what a side needs."""


def prepare(folder: Path, images: Path, count: int, size: int, views: int) -> None:
    """Make a model, and the files to score."""
    from PIL import Image

    from dermaray.data.synthetic import generate_dataset

    generate_dataset(folder / "images", 108)
    (folder / "size").write_text(str(size))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder, size=size, views=views))
    for words in (["prepare", "images", "--out", "data"], ["train", "--config", "config.yaml"]):
        named = [str(folder / word) if word in ("images", "data", "config.yaml") else word for word in words]
        subprocess.run([sys.executable, "-m", f"jobs.{named[0]}", *named[1:]], cwd=ROOT, check=True)
    originals = sorted(chain(images.rglob("*.jpg"), images.rglob("*.png")))
    if not originals:
        raise SystemExit(f"{images} holds no image")
    (folder / "files").mkdir()
    for number in range(count):
        with Image.open(originals[number % len(originals)]) as image:
            resized = image.convert("RGB").resize(SIZES[number % len(SIZES)], Image.Resampling.LANCZOS)
        resized.save(folder / "files" / f"{number:06}.jpg", quality=90)


def measured(side: str, folder: Path) -> dict[str, float]:
    """Run a side in a process of its own."""
    began = time.time()
    command = [sys.executable, "-m", "benchmarks.score", "--side", side, "--folder", str(folder)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{side} failed")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {"rate": figures["rate"], "start": figures["began"] - began}


def show(rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print the table."""
    print("| side | images a second | start, s | dermaray, times this one |")
    print("| --- | ---: | ---: | ---: |")
    for side in rounds[0]:
        rates, starts = ([found[side][name] for found in rounds] for name in ("rate", "start"))
        ratios = [found["dermaray"]["rate"] / found[side]["rate"] for found in rounds]
        start = "" if side in ("decode", "network") else f"{median(starts):.1f}"
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {side} | {median(rates):,.1f} | {start} | {spread} |")
    if not {"decode", "network"} <= set(rounds[0]):
        return
    slower = [found["dermaray"]["rate"] / min(found[s]["rate"] for s in ("decode", "network")) for found in rounds]
    both = [found["dermaray"]["rate"] * sum(1 / found[s]["rate"] for s in ("decode", "network")) for found in rounds]
    print(f"\nOf the slower of decoding and network alone: {median(slower):.2f}")
    print(f"Of what two cores can do that have both to do: {median(both):.2f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of photographs")
    parser.add_argument("--files", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=160, help="height and width that the model takes")
    parser.add_argument("--views", type=int, default=1, help="that it averages over")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        clock = Clock()
        with contextlib.redirect_stdout(sys.stderr):
            SIDES[args.side](args.folder, clock)
        print(json.dumps(clock.figures()))
        return
    if args.images is None:
        parser.error("--images is missing")
    wanted = {*args.sides, "dermaray"}
    sides = [side for side in SIDES if side in wanted and NEEDED.get(side, lambda: True)()]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prepare(folder, args.images.resolve(), args.files, args.size, args.views)
        rounds = []
        for number in range(args.rounds):
            rounds.append({side: measured(side, folder) for side in sides})
            rates = ", ".join(f"{side} {found['rate']:.1f}" for side, found in rounds[-1].items())
            print(f"round {number + 1} of {args.rounds}, images a second: {rates}", file=sys.stderr, flush=True)
    show(rounds)


if __name__ == "__main__":
    main()
