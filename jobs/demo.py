"""python -m jobs.demo [--data FOLDER] [--out runs/demo]

Everything in turn: images, a manifest, training, evaluation, an archive scored, a live request answered. Without
`--data` it draws a small synthetic set; with it, it uses your own class folders.
"""

import argparse
import json
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.options import add_address, folder

CONFIG = Path(__file__).parent.parent / "configs" / "demo.yaml"

SYNTHETIC_IMAGES = 540


@dataclass(frozen=True)
class _Step:
    """One station of the demo: what it is called, what it does; it returns what came out and where that lies."""

    title: str
    run: Callable[[], tuple[str, Path]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="your own class folders (default: a synthetic set)")
    parser.add_argument("--out", type=folder, default=Path("runs/demo"), metavar="DIR", help="(default: runs/demo)")
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from dermaray.data.formats import read_source
    from jobs.console import console, say
    from jobs.session import ray_session

    if args.data is not None:
        read_source(args.data)
    demo = _Demo(args)
    rows = []
    began = time.monotonic()
    with ray_session(args) as cluster:
        steps = demo.steps(workers=2 if cluster.cpus >= 2 else 1)
        for number, step in enumerate(steps, start=1):
            console.rule(f"{number}/{len(steps)}  {step.title}", align="left")
            start = time.monotonic()
            outcome, where = step.run()
            rows.append((step.title, f"{time.monotonic() - start:.0f} s", outcome, str(where)))
    say("")
    console.print(_table(rows, time.monotonic() - began))
    if args.data is None:
        say("The images were drawn by dermaray. These figures say that the software works, and nothing about skin.")
    return 0


class _Demo:
    """The stations, each the very job that a user would run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._out: Path = args.out
        self._data: Path = args.data or self._out / "images"
        self._draw = args.data is None
        self._address, self._verbose = args.address, args.verbose

    def steps(self, workers: int) -> list[_Step]:
        """Return the stations in order."""
        drawing = [_Step("Draw synthetic images", self._images)] if self._draw else []
        return [
            *drawing,
            _Step("Prepare", self._prepare),
            _Step(f"Train on {workers} worker(s)", lambda: self._train(workers)),
            _Step("Evaluate", self._evaluate),
            _Step("Bulk-score a zip", self._score),
            _Step("Answer a live request", self._serve),
        ]

    def _job(self, name: str, *words: object) -> None:
        """Run a job as its command line would, on the connected Ray."""
        import importlib

        module = importlib.import_module(f"jobs.{name}")
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        args = parser.parse_args([str(word) for word in words])
        args.verbose, args.address = self._verbose, self._address
        module.run(args)

    def _images(self) -> tuple[str, Path]:
        import shutil

        from dermaray.data.synthetic import generate_dataset
        from jobs.console import waiting

        if (self._data / "SYNTHETIC.txt").exists():
            shutil.rmtree(self._data)
        with waiting(f"Drawing {SYNTHETIC_IMAGES} images"):
            counts = generate_dataset(self._data, SYNTHETIC_IMAGES)
        return f"{sum(counts.values())} images, {len(counts)} classes", self._data

    def _prepare(self) -> tuple[str, Path]:
        out = self._out / "data"
        self._job("prepare", self._data, "--out", out, "--overwrite")
        summary = json.loads((out / "summary.json").read_text())
        usable, seen = summary["usable_images"], summary["source_images"]
        return f"{usable} of {seen} images usable", out / "manifest.parquet"

    def _train(self, workers: int) -> tuple[str, Path]:
        out, data = self._out / "train", self._out / "data"
        classes = json.loads((data / "summary.json").read_text())["images_per_class"]
        images = sum(counts["train"] for counts in classes.values())
        overrides = [
            f"data.manifest={data / 'manifest.parquet'}",
            f"out={out}",
            f"scaling.num_workers={workers}",
            # A few images of one's own should do for a try.
            f"training.global_batch_size={max(workers, min(32, images // 4 * 2))}",
        ]
        self._job("train", "--config", CONFIG, "--overwrite", "--new", *overrides)
        epochs = len((out / "history.csv").read_text().splitlines()) - 1
        return f"{epochs} epochs", out / "model"

    def _evaluate(self) -> tuple[str, Path]:
        out = self._out / "evaluation"
        data = self._out / "data" / "manifest.parquet"
        self._job("evaluate", "--model", self._out / "train", "--data", data, "--out", out, "--overwrite")
        metrics = json.loads((out / "metrics.json").read_text())
        balanced, chance = metrics["balanced_accuracy"], metrics["majority_baseline"]["balanced_accuracy"]
        return f"balanced accuracy {balanced:.2f} (chance {chance:.2f})", out / "report.html"

    def _score(self) -> tuple[str, Path]:
        archive, out = self._out / "archive.zip", self._out / "scores"
        _write_archive(archive, _images_below(self._data))
        self._job("score", archive, "--model", self._out / "train", "--out", out, "--new", "--csv")
        summary = json.loads((out / "summary.json").read_text())
        unscored = summary["images"] - summary["scored"]
        return f"{summary['scored']} scored, {unscored} refused with a reason", out / "scores.csv"

    def _serve(self) -> tuple[str, Path]:
        from cluster.ports import free_port
        from dermaray.data.manifest import Manifest
        from jobs.serve import listening, serving

        # One that was prepared: the first file of the folder may be no image.
        image = Path(Manifest.read(self._out / "data").rows("test")["uri"][0].as_py())
        model = self._out / "train" / "model"
        host, port = listening() or ("127.0.0.1", free_port())
        with serving(model, host, port, verbose=self._verbose) as url:
            request = urllib.request.Request(f"{url}/v1/predict", image.read_bytes(), method="POST")
            began = time.monotonic()
            # Not by a proxy that the environment names.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=30) as response:
                answer = json.load(response)
            milliseconds = (time.monotonic() - began) * 1000
        out = self._out / "answer.json"
        out.write_text(json.dumps(answer, indent=2) + "\n")
        return f"{answer['label']}, in {milliseconds:.0f} ms", out


def _images_below(folder: Path) -> list[Path]:
    from dermaray.data.source import is_image_name

    return sorted(path for path in folder.rglob("*") if path.is_file() and is_image_name(path))


def _write_archive(archive: Path, images: list[Path]) -> None:
    """Zip at most 200 images, and one file that is none, so that a refusal can be seen."""
    step = max(1, len(images) // 200)
    # Some file systems know no time of a file, which a zip takes from 1980 on.
    with zipfile.ZipFile(archive, "w", strict_timestamps=False) as file:
        for image in images[::step]:
            file.write(image, image.name)
        file.writestr("not-an-image.jpg", "<html>This is a web page.</html>")


def _table(rows: list[tuple[str, str, str, str]], seconds: float) -> object:
    from rich.table import Table

    table = Table(title="dermaray demo", caption=f"{seconds:.0f} s in all, Ray's start included", title_justify="left")
    table.add_column("what ran")
    table.add_column("took", justify="right")
    table.add_column("what came out")
    table.add_column("where it lies", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("demo"))
