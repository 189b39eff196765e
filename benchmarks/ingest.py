"""Images a second, and memory, from JPEG files to the batches of a training worker that does nothing.

    python benchmarks/ingest.py                        600x450 pixels, 2,000 images, 5 rounds, this machine's cores
    python benchmarks/ingest.py --size 1024x768
    python benchmarks/ingest.py --memory --images 2000 20000

A round runs every side once, each in a process of its own, one after the other; a figure is the median of the rounds.
Importing, starting Ray and a warm-up are not timed; the start of a stream's own processes is part of its first epoch,
and told apart besides. What is compared with: `keras.utils.image_dataset_from_directory`
as Keras documents it, and a `tf.data` pipeline as TensorFlow's guide to its performance advises.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import harmonic_mean, mean, median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BATCH, HEIGHT, WIDTH = 32, 180, 180
DISTINCT = 40
"""Pictures that are drawn; the other files are hard links to them, which nothing here can tell from copies."""
SIDES = {
    "keras": "`image_dataset_from_directory`",
    "keras-prefetch": "the same, `.prefetch(AUTOTUNE)`",
    "tf.data": "`tf.data` as its guide advises",
    "tf.data-cache": "the same, `.cache()` (in memory)",
    "dermaray": "dermaray",
    "dermaray-none": "dermaray, `ingest.cache=none`",
}

FIGURES: dict[str, Callable[[Any], float]] = {
    "epoch 1": lambda run: run.rates[0],
    "its middle": lambda run: run.steady,
    # All images over all time, since a stream that reads ahead has fast epochs after slow ones; but for the last epoch,
    # much of which was read during those before it, while nothing is read ahead of its end.
    "epochs 2 to last but one": lambda run: harmonic_mean(run.rates[1:-1]),
}
"""Images a second, by what the tables call them."""


def make_images(folder: Path, images: int, height: int, width: int) -> float:
    """Draw JPEG files into two class folders of `folder`; return their mean size in bytes."""
    import cv2
    import numpy as np

    from dermaray.data.synthetic import render_lesion

    rng = np.random.default_rng(0)
    sizes = []
    for number in range(images):
        path = folder / ("melanoma", "nevus")[number % 2] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= DISTINCT:
            os.link(folder / path.parent.name / f"{number % DISTINCT:06d}.jpg", path)
            continue
        drawn = render_lesion(path.parent.name, number, (height, width))
        # A drawing is smoother than a photograph, and would weigh less.
        noisy = (drawn + rng.normal(0, 1, (height, width, 1))).clip(0, 255).astype(np.uint8)
        _, encoded = cv2.imencode(".jpg", noisy[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        path.write_bytes(encoded.tobytes())
        sizes.append(len(encoded))
    return mean(sizes)


@dataclass(frozen=True)
class Timing:
    """How fast a side was.

    Attributes:
        start: Seconds from asking for the first batch to having it.
        rates: Images a second, for every epoch, from asking for its first batch to having its last.
        steady: Images a second over the middle three fifths of the first epoch, without its start. Batches come in
            blocks of 256 images here and there, so it takes thousands of images to tell.
    """

    start: float
    rates: list[float]
    steady: float


def timed(epochs: Iterable[Iterable[Any]]) -> Timing:
    """Take all batches of all epochs."""
    rates, first = [], []
    for epoch in epochs:
        seen, began = 0, time.perf_counter()
        for batch in epoch:
            seen += len(batch[0])
            if not rates:
                first.append((seen, time.perf_counter() - began))
        rates.append(seen / (time.perf_counter() - began))
    (before, since), (after, until) = first[len(first) // 5], first[4 * len(first) // 5]
    return Timing(first[0][1], rates, (after - before) / (until - since))


def keras_side(folder: Path, epochs: int, prefetch: bool) -> Timing:
    """Time `image_dataset_from_directory`."""
    import keras
    import tensorflow as tf

    dataset = keras.utils.image_dataset_from_directory(
        folder, batch_size=BATCH, image_size=(HEIGHT, WIDTH), verbose=False
    )
    if prefetch:
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return tf_epochs(dataset, epochs)


def tf_data_side(folder: Path, epochs: int, cache: bool) -> Timing:
    """Time `tf.data` with parallel reading, shuffling and prefetching."""
    import tensorflow as tf

    paths = sorted(str(path) for path in folder.glob("*/*.jpg"))
    labels = [int("nevus" in path) for path in paths]

    def read(path: Any, label: Any) -> tuple[Any, Any]:
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.cast(tf.image.resize(pixels, (HEIGHT, WIDTH)), tf.uint8), label

    dataset = tf.data.Dataset.from_tensor_slices((paths, labels)).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    if cache:
        dataset = dataset.cache()
    return tf_epochs(dataset.shuffle(1000).batch(BATCH).prefetch(tf.data.AUTOTUNE), epochs)


def tf_epochs(dataset: Any, epochs: int) -> Timing:
    """Iterate over a `tf.data` pipeline once per epoch, as `fit` does."""
    # A cache that is only begun is begun anew, so this warms nothing but TensorFlow.
    for _ in dataset.take(1):
        pass
    return timed(dataset for _ in range(epochs))


def dermaray_side(folder: Path, epochs: int, cached: bool, height: int, width: int) -> Timing:
    """Time one stream over all epochs, as a training worker gets its batches."""
    from cluster.runtime import connect

    paths = sorted(str(path) for path in folder.glob("*/*.jpg"))
    with connect(None, num_cpus=len(os.sched_getaffinity(0))):
        import ray

        from dermaray.data.frames import remove_frames
        from dermaray.images.spec import InputSpec

        table = image_table(paths, height, width)
        # The worker holds no CPU: it does nothing, and the other sides have all cores for reading too.
        worker = ray.remote(num_cpus=0)(Worker).remote()
        # Loads TensorFlow and what Ray Data keeps for all streams. The stream that is timed starts actors of its own.
        warm_up = image_table(paths[:64], height, width)
        timing: Timing = ray.get(worker.deliver.remote(warm_up, table, epochs, cached))
        remove_frames([table.frames(InputSpec(height=HEIGHT, width=WIDTH))])
    return timing


def image_table(paths: list[str], height: int, width: int) -> Any:
    """Return the files as training draws from them."""
    import numpy as np
    import pyarrow as pa

    from dermaray.data.streams import ImageTable
    from dermaray.files import sha256_file

    sizes = [np.full(len(paths), size, np.int32) for size in (height, width)]
    labels = np.array(["nevus" in path for path in paths], np.int32)
    ids, sha256s = [Path(path).stem for path in paths], [sha256_file(Path(path)) for path in paths]
    return ImageTable(pa.array(ids), pa.array(paths), pa.array(sha256s), labels, *sizes, "benchmark")


class Worker:
    """Takes every batch that a training worker gets, and drops it; an actor, as training workers are."""

    def deliver(self, warm_up: Any, table: Any, epochs: int, cached: bool) -> Timing:
        """Time all epochs, after one epoch of `warm_up` without a cache."""
        from dermaray.models.own_process import import_keras

        import_keras()
        self._timing(warm_up, 1, False)
        return self._timing(table, epochs, cached)

    def _timing(self, table: Any, epochs: int, cached: bool) -> Timing:
        import tensorflow as tf

        from dermaray.data.streams import Recipe
        from dermaray.images.spec import InputSpec
        from dermaray.training.feed import started, worker_stream
        from dermaray.training.ingest import distributed_batches
        from dermaray.training.plan import training_plan

        spec = InputSpec(height=HEIGHT, width=WIDTH)
        plan = training_plan(table.labels, epochs, BATCH, "none", 0)

        def batches() -> Iterator[Any]:
            stream = worker_stream(
                plan.shard(0, 1),
                table,
                spec,
                Recipe(),
                batch_size=BATCH,
                world_size=1,
                reserved_cpus=0,
                cached=cached,
            )
            yield from distributed_batches(tf.distribute.get_strategy(), started(stream), spec, BATCH, [])

        stream = batches()
        return timed(islice(stream, plan.steps // epochs) for _ in range(epochs))


def run_side(name: str, folder: Path, epochs: int, height: int, width: int) -> Timing:
    """Run one side in this process."""
    sides: dict[str, Callable[[], Timing]] = {
        "keras": lambda: keras_side(folder, epochs, prefetch=False),
        "keras-prefetch": lambda: keras_side(folder, epochs, prefetch=True),
        "tf.data": lambda: tf_data_side(folder, epochs, cache=False),
        "tf.data-cache": lambda: tf_data_side(folder, epochs, cache=True),
        "dermaray": lambda: dermaray_side(folder, epochs, True, height, width),
        "dermaray-none": lambda: dermaray_side(folder, epochs, False, height, width),
    }
    return sides[name]()


def started(name: str, folder: Path, args: argparse.Namespace) -> tuple[Timing, int]:
    """Run one side in a process of its own; return its timing, and its peak memory where that is asked for."""
    command = [sys.executable, __file__, "--side", name, "--folder", str(folder), "--epochs", str(args.epochs)]
    command += ["--size", args.size]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    # Ray's workers give way to other processes; where others run on the machine, they would to dermaray's side alone.
    environment["RAY_worker_niceness"] = "0"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    peak = Peak(process.pid)
    if args.memory:
        peak.start()
    output, errors = process.communicate()
    peak.stop()
    if process.returncode:
        raise SystemExit(f"{name} failed:\n{errors}")
    return Timing(**json.loads(output.strip().splitlines()[-1])), peak.bytes


class Peak:
    """The largest sum of PSS over a process and all its descendants: what they share is counted once."""

    def __init__(self, root: int) -> None:
        self.bytes = 0
        self._root, self._ended = root, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to watch, five times a second."""
        self._thread.start()

    def stop(self) -> None:
        """End watching."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.bytes = max(self.bytes, sum(map(pss_of, tree_of(self._root))))


def tree_of(root: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def pss_of(process: int) -> int:
    """Return a process's share of memory in bytes, 0 where it has ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def throughput(args: argparse.Namespace, folder: Path) -> None:
    """Measure and print images a second, and beside them how many times as fast as Keras that is."""
    runs: dict[str, list[Timing]] = {name: [] for name in args.sides}
    for number in range(args.rounds):
        for name in args.sides:
            run = started(name, folder, args)[0]
            runs[name].append(run)
            shown = " ".join(f"{rate:,.0f}" for rate in run.rates)
            print(f"round {number + 1}, {name}: start {run.start:.2f} s, steady {run.steady:,.0f}, {shown}", flush=True)
    figures = {name: [median(map(figure, timings)) for figure in FIGURES.values()] for name, timings in runs.items()}
    base = figures.get("keras", [math.nan] * len(FIGURES))
    print(f"\n| | start, s | {' | '.join(FIGURES)} | epoch 1, range |\n| --- |{' ---: |' * (len(FIGURES) + 2)}")
    for name, found in figures.items():
        shown = " | ".join(f"{rate:,.0f} ({rate / keras:.2f}x)" for rate, keras in zip(found, base, strict=True))
        epochs = sorted(run.rates[0] for run in runs[name])
        start = median(run.start for run in runs[name])
        print(f"| {SIDES[name]} | {start:.2f} | {shown} | {epochs[0]:,.0f} to {epochs[-1]:,.0f} |")


def memory(args: argparse.Namespace, folders: dict[int, Path]) -> None:
    """Measure and print peak memory."""
    header = [f"{images:,} images" for images in folders]
    print(f"| peak PSS in MiB | {' | '.join(header)} | ratio |\n|{' --- |' * (len(header) + 2)}")
    for name in args.sides:
        peaks = [median(started(name, f, args)[1] for _ in range(args.rounds)) for f in folders.values()]
        shown = " | ".join(f"{peak / 2**20:,.0f}" for peak in peaks)
        print(f"| {SIDES[name]} | {shown} | {peaks[-1] / peaks[0]:.2f} |", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="From JPEG files to a training worker's batches.")
    parser.add_argument("--images", type=int, nargs="+", default=[2000], metavar="N", help="(default: 2000)")
    parser.add_argument("--size", default="600x450", metavar="WxH", help="of the files, in pixels (default: 600x450)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--epochs", type=int, default=6, help="per round, the first one cold (default: 6)")
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=[*SIDES], metavar="SIDE", help=", ".join(SIDES))
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="that all sides share (default: all)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not (args.memory or args.side) and args.epochs < 3:
        parser.error(f"--epochs must be 3 or more. Received: {args.epochs}")
    width, height = map(int, args.size.split("x"))
    if args.side:
        print(json.dumps(asdict(run_side(args.side, args.folder, args.epochs, height, width))))
        return
    sys.path.insert(0, str(ROOT))
    os.sched_setaffinity(0, range(args.cores))
    with tempfile.TemporaryDirectory() as folder:
        folders = {images: Path(folder) / str(images) for images in args.images}
        weights = [make_images(place, images, height, width) for images, place in folders.items()]
        print(f"{args.size} pixels, {weights[0] / 1000:.0f} kB a file, {args.images} images, {args.cores} cores\n")
        if args.memory:
            memory(args, folders)
        else:
            throughput(args, next(iter(folders.values())))


if __name__ == "__main__":
    main()
