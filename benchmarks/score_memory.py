"""What bulk scoring holds in memory, of few images, of many, and of hostile ones; and of a million that nobody decodes.

    python -m benchmarks.score_memory sizes --model DIR --images ../shared/data/ham10000/images   (about 10 minutes)
    python -m benchmarks.score_memory million                                                      (about 10 minutes)

`sizes` runs `dermaray score` on 1,000 images, on 30,000, and on the hostile files of the tests, and adds up the memory
of all its processes, Ray's included, twice a second: what several share counts once (PSS). `million` lists a folder of
a million files, cuts it and runs all of it through Ray Data and into shards, with a stub in the place of reader,
decoder and model; what it tells is of the driver.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from benchmarks.processes import below

ROOT = Path(__file__).resolve().parents[1]


def memory(root: int) -> int:
    """Return the bytes that a process and all below it hold."""
    total = 0
    for pid in (root, *below(root)):
        with suppress(OSError, StopIteration, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    return total


def peak(folder: Path, model: Path, out: Path) -> int:
    """Score a folder, and return the most that all processes held at a time."""
    command = [sys.executable, "-m", "jobs.score", str(folder), "--model", str(model), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit("dermaray failed")
    return most


def link(originals: list[Path], folder: Path, count: int) -> None:
    """Make so many files of some, which take no room."""
    for number in range(count):
        place = folder / f"{number // 1000:04}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], place / f"{number:07}.jpg")


def sizes(model: Path, images: Path) -> None:
    """Print the table of peaks."""
    from tests.integration.test_hostile import hostile_folder

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "originals").mkdir()
        found = {path.name: path for path in islice(sorted(images.rglob("*.jpg")), 500)}
        copies = [folder / "originals" / name for name in found]
        for path in copies:
            path.write_bytes(found[path.name].read_bytes())
        inputs = {f"{count:,} images": folder / str(count) for count in (1000, 30_000)}
        for count, place in zip((1000, 30_000), inputs.values(), strict=True):
            link(copies, place, count)
        (folder / "hostile").mkdir()
        expected = hostile_folder(folder / "hostile")
        inputs[f"{len(expected)} hostile files"] = folder / "hostile"
        print("| input | peak, MiB | seconds |\n| --- | ---: | ---: |")
        for number, (name, place) in enumerate(inputs.items()):
            began = time.monotonic()
            most = peak(place, model.resolve(), folder / f"out-{number}")
            print(f"| {name} | {most / 2**20:,.0f} | {time.monotonic() - began:.0f} |", flush=True)


def million(count: int) -> None:
    """Print what the driver takes for a million images that are not looked at."""
    import numpy as np
    import pyarrow as pa

    from cluster.runtime import connect
    from dermaray.data.inputs import stream_inputs
    from dermaray.models.artifact import open_artifact
    from dermaray.models.bulk import Actors, Batch
    from dermaray.scoring import pipeline
    from dermaray.scoring.ledger import Ledger
    from dermaray.scoring.listed import Listed
    from dermaray.scoring.run import score_shards
    from jobs.options import REFERENCE

    artifact = open_artifact(REFERENCE)
    classes = len(artifact.label_set.classes)

    class Stub:
        """Makes the rows of a piece without a look at it."""

        def __init__(self, *_: object) -> None:
            pass

        def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
            rows = len(table)
            names = np.array([name.decode() for name in table["name"].to_pylist()])
            batch: Batch = {
                **{name: table[name].to_numpy() for name in ("shard", "task", "start")},
                "row": np.arange(rows) + table["start"][0].as_py(),
                "last": np.arange(rows) == rows - 1,
                "image_id": names,
                "uri": names,
                "sha256": np.full(rows, "0" * 64),
                "reason": np.full(rows, ""),
                "message": np.full(rows, ""),
                "width": np.full(rows, 600),
                "height": np.full(rows, 450),
                "probabilities": np.full((rows, classes), 1 / classes, np.float32),
                "label": np.zeros(rows, int),
                "alert": np.zeros(rows, bool),
                "refer": np.zeros(rows, bool),
                "prediction_set": np.zeros((rows, classes), bool),
                "ood_score": np.zeros(rows, np.float32),
                **dict.fromkeys(pipeline.STAGES, np.zeros(rows)),
            }
            yield pipeline.packed(batch)

    pipeline._ReadAndScore = Stub  # type: ignore[assignment, misc]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "originals").mkdir()
        # A file system has a limit to the names of one file.
        originals = [folder / "originals" / f"{number}.jpg" for number in range(100)]
        for path in originals:
            path.write_bytes(b"nobody looks")
        link(originals, folder / "archive", count)
        tell("before")
        listed = Listed(stream_inputs([str(folder / "archive")]))
        count = listed.wait()
        tell(f"{listed.images:,} files listed, cut into {count} shards, and digested")
        with connect(None) as cluster:
            tell("Ray started")
            with Ledger.open(str(folder / "out"), {"model": "", "engine": ""}, listed, new=False) as ledger:
                ledger.begin()
                actors = Actors("litert", int(cluster.cpus))
                score_shards(listed, artifact, ledger, actors, 60.0, lambda count: None)
                tell(f"{len(ledger.done()):,} shards written")


_began = time.monotonic()


def tell(what: str) -> None:
    """Print how long it took until here, and the most that this process has held."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - _began:7.1f} s  {held:7,.0f} MiB  {what}", flush=True)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sizes", "million"])
    parser.add_argument("--model", type=Path, help="what scores, for sizes")
    parser.add_argument("--images", type=Path, help="a folder of photographs, for sizes")
    parser.add_argument("--count", type=int, default=1_000_000, help="files, for million")
    args = parser.parse_args()
    if args.what == "million":
        million(args.count)
    elif args.model is None or args.images is None:
        parser.error("sizes needs --model and --images")
    else:
        sizes(args.model, args.images)


if __name__ == "__main__":
    main()
