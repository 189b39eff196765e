"""python -m jobs.score INPUT [INPUT ...] [--model DIR] --out DIR

One row per image of folders, archives, tables, lists or an object store, scored or with the reason why not:
`scores.parquet/`, `summary.json`, `scores.csv` on demand, and `_SUCCESS` when every image has its row. The same command
goes on with a run that was killed.
"""

import argparse
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jobs.options import add_address, add_optional_model

if TYPE_CHECKING:
    import pyarrow as pa

    from cluster.runtime import Cluster
    from dermaray.data.archive import Listing
    from dermaray.models.artifact import Artifact
    from dermaray.models.bulk import Actors
    from dermaray.models.engines import EngineName
    from dermaray.scoring.ledger import Ledger

_TELL_SECONDS = 5.0
"""Between two writings of `progress.json`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a folder (with all below it), a zip, a tar, an image, or a pattern of them; a list of paths (.txt); a "
        "Parquet or Arrow file with images or paths; a manifest; a prefix, an image or a table in an object store",
    )
    add_optional_model(parser)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the folder to write, or a prefix in an object store"
    )
    parser.add_argument("--new", action="store_true", help="begin anew, where an earlier or unfinished result is there")
    parser.add_argument("--csv", action="store_true", help="write scores.csv as well")
    parser.add_argument(
        "--engine",
        choices=["litert", "keras"],
        help="what runs the network: litert on CPUs, keras as in training, on GPUs too (default: litert, where it can)",
    )
    parser.add_argument(
        "--actors",
        type=int,
        metavar="N",
        help="processes that hold the model (default: one a CPU; with keras one a GPU, or one)",
    )
    parser.add_argument(
        "--time-limit",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="for an image to be read and decoded; one that takes longer is not scored (default: 60)",
    )
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.data.inputs import list_inputs
    from dermaray.data.storage import local_path
    from dermaray.models.engines import choose_engine
    from dermaray.scoring.ledger import Ledger
    from dermaray.scoring.shards import cut, listing_digest
    from jobs.console import say
    from jobs.options import chosen_model
    from jobs.session import ray_session

    if (folder := local_path(args.out)) is not None:
        check_lasting(folder)
    artifact = chosen_model(args)
    listing = list_inputs(args.inputs)
    shards = cut(listing.members)
    engine = choose_engine(artifact, args.engine)
    digest = listing_digest(listing.members)
    job = {"inputs": digest, "model": artifact.digest, "engine": engine, "shards": len(shards)}
    with Ledger.open(args.out, job, new=args.new) as ledger:
        if ledger.complete:
            _write_csv(args, artifact, ledger)
            say(f"{args.out} holds the scores of all of it already; --new scores it again")
            return 0
        if done := len(ledger.done()):
            say(f"Going on: {done:,} of {len(shards):,} shards are there")
        began = time.monotonic()
        with ray_session(args) as cluster:
            actors = _actors(args.actors, engine, cluster)
            ledger.begin()
            images = _score(args, listing, shards, artifact, actors, ledger)
        summary = _finish(args, listing, artifact, engine, ledger)
    say(f"{images:,} images in {time.monotonic() - began:.0f} s, by {artifact.name}")
    say(f"{summary['scored']:,} of {summary['images']:,} images are scored")
    if summary["dead_letters"]:
        dead = ", ".join(f"{count:,} {reason}" for reason, count in summary["dead_letters"].items())
        say(f"Not scored: {dead}")
    say(f"Scores: {'scores.csv and ' if args.csv else ''}scores.parquet in {args.out}")
    return 0


def _actors(count: int | None, engine: "EngineName", cluster: "Cluster") -> "Actors":
    """Return the processes that hold the model."""
    from dermaray.models.bulk import Actors

    if engine == "litert":
        actors = Actors(engine, int(cluster.cpus) if count is None else count)
        cluster.check_actors(actors.count, spare=0)
        return actors
    actors = Actors(engine, max(int(cluster.gpus), 1) if count is None else count, gpus=1 if cluster.gpus else 0)
    cluster.check_actors(actors.count)
    return actors


def _score(
    args: argparse.Namespace,
    listing: "Listing",
    shards: "list[pa.Table]",
    artifact: "Artifact",
    actors: "Actors",
    ledger: "Ledger",
) -> int:
    """Score what is missing, tell about it, and return how many images that were."""
    from dermaray.errors import OutputError
    from dermaray.scoring.ledger import PROGRESS
    from dermaray.scoring.run import score_shards
    from dermaray.scoring.shards import size_of
    from jobs.console import tracked

    there = sum(size_of(shards[number]) or 0 for number in ledger.done())
    left = None if listing.images is None else listing.images - there
    began = told = time.monotonic()
    images = 0
    with tracked("Scoring", left) as tracker:

        def progress(count: int) -> None:
            nonlocal images, told
            images = count
            tracker.update(count)
            if (now := time.monotonic()) - told >= _TELL_SECONDS:
                told, rate = now, images / (now - began)
                seconds = None if left is None else round((left - images) / rate)
                known = {"images": listing.images, "done": there + images, "images_per_second": round(rate, 1)}
                # It is for show alone.
                with suppress(OutputError):
                    ledger.tell(PROGRESS, {**known, "seconds_left": seconds})

        score_shards(shards, artifact, ledger, actors, args.time_limit, progress)
    return images


def _finish(
    args: argparse.Namespace, listing: "Listing", artifact: "Artifact", engine: "EngineName", ledger: "Ledger"
) -> dict[str, Any]:
    """Write what comes of all rows."""
    from dermaray.errors import DataError
    from dermaray.scoring.ledger import PROGRESS, SUMMARY
    from dermaray.scoring.summary import summarise

    counted = summarise(ledger)
    message = counted.pop("message")
    if not counted["images"]:
        ledger.clear()
        raise DataError(f"{', '.join(args.inputs)} holds no image")
    if counted["dead_letters"].get("unreadable") == counted["images"]:
        ledger.clear()
        # Not so many bad images: a place that the cluster's nodes do not see.
        raise DataError(f"none of the {counted['images']:,} images could be read: {message}")
    _write_csv(args, artifact, ledger)
    summary = {
        "inputs": args.inputs,
        **counted,
        "ignored_files": listing.ignored,
        "model": artifact.name,
        "model_version": artifact.version,
        "model_digest": artifact.digest,
        "engine": engine,
    }
    ledger.tell(SUMMARY, summary)
    ledger.tell(PROGRESS, {"images": counted["images"], "done": counted["images"], "seconds_left": 0})
    ledger.succeed()
    return summary


def _write_csv(args: argparse.Namespace, artifact: "Artifact", ledger: "Ledger") -> None:
    """Write all rows as CSV as well, where that is asked for and was not done."""
    from dermaray.models.rows import CsvWriter, score_schema
    from dermaray.scoring.ledger import TABLE

    if args.csv and not ledger.holds(TABLE):
        with ledger.writing(TABLE) as file, CsvWriter(file, artifact) as writer:
            for rows in ledger.rows(score_schema(artifact).names):
                writer.write(rows)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 was expected. Received: {text}")
    return seconds


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("score"))
