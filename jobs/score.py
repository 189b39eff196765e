"""python -m jobs.score INPUT [INPUT ...] [--model DIR] --out DIR

One row per image of folders, archives, tables, lists or an object store, scored or with the reason why not:
`scores.parquet/`, `summary.json`, `scores.csv` on demand, and `_SUCCESS` when every image has its row. The same command
goes on with a run that was killed.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.options import REFERENCE, add_address, add_optional_model

if TYPE_CHECKING:
    import ray.data

    from dermaray.models.artifact import Artifact
    from dermaray.models.bulk import Actors
    from dermaray.models.engines import EngineName
    from dermaray.scoring.ledger import Ledger
    from dermaray.scoring.listed import Listed

_NOT_READ = ("unreadable", "timed_out", "crashed")

_LISTING_SECONDS = 10.0
"""That scoring waits for the listing of its inputs; what takes longer is listed while it is scored."""

_MOST_KINDS = 8
"""Of files that were passed over, say."""

_MOST_SHOWN = 1000
"""Images of a page that a browser can show."""


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
        "--isic-submission",
        action="store_true",
        help="write submission.csv as well, as the ISIC challenges of 2018 and 2019 take it",
    )
    parser.add_argument(
        "--top",
        type=_count,
        metavar="N",
        help="write top.html as well: the N highest melanoma probabilities, to look at",
    )
    parser.add_argument("--profile", action="store_true", help="print what reading, decoding and scoring took")
    parser.add_argument(
        "--engine",
        choices=["litert", "bfloat16", "int8", "keras"],
        help="litert, bfloat16 (with the extra openvino, on processors that know it) and int8 (of models made with it) "
        "are for CPUs; keras is as in training, for GPUs too (default: litert, where it can be)",
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
        help="for an image to be read and decoded, three times as many for an object in a store; one that takes longer "
        "is not scored (default: 60)",
    )
    add_address(parser)


def score_archive(
    images: "ray.data.Dataset",
    model: str | Path | None = None,
    *,
    column: str = "bytes",
    engine: "EngineName | None" = None,
    actors: int | None = None,
) -> "ray.data.Dataset":
    """Score images within a Ray program of one's own: one row in, one row out.

        images = ray.data.read_binary_files("s3://bucket/lesions", include_paths=True)
        score_archive(images, "runs/reference").write_parquet("scores")

    Args:
        images: A dataset with a column of the bytes of image files. A path (`path`, `uri` and the like) and an id
            (`image_id`, `isic_id`) are used where there are such columns.
        model: The model's folder, which every node can read; the reference model by default.
        column: The column of bytes.
        engine: What runs the network; see `--engine`.
        actors: Processes that hold the model, at most; by default one for each CPU, or one for each GPU where the
            engine is `keras` and there are some.

    Returns:
        The dataset's other columns, and those of a row of scores, in place of the bytes. It is as lazy as any dataset.
        An image that cannot be scored has a row with the reason.

    Raises:
        ArtifactError: The model is missing or damaged, or has no network for the engine, or that is not installed.
    """
    import ray

    from dermaray.models.artifact import open_artifact
    from dermaray.models.bulk import Actors
    from dermaray.models.engines import choose_engine
    from dermaray.scoring.dataset import score_dataset

    artifact = open_artifact(Path(model or REFERENCE).resolve())
    artifact.verify()
    there = ray.cluster_resources()
    chosen = choose_engine(artifact, engine)
    processes = Actors.chosen(chosen, actors, there.get("CPU", 1), there.get("GPU", 0), fed=False)
    return score_dataset(images, artifact, column, processes)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.data.inputs import stream_inputs
    from dermaray.data.storage import local_path
    from dermaray.errors import ArtifactError
    from dermaray.models.engines import choose_engine
    from dermaray.scoring.ledger import Ledger
    from dermaray.scoring.listed import Listed
    from jobs.console import say, waiting
    from jobs.options import chosen_model
    from jobs.session import ray_session

    if (folder := local_path(args.out)) is not None:
        check_lasting(folder)
    artifact = chosen_model(args)
    if args.top and artifact.label_set.melanoma_index is None:
        raise ArtifactError(
            f"--top needs a model with a class of melanoma. It knows: {', '.join(artifact.label_set.classes)}"
        )
    engine = choose_engine(artifact, args.engine)
    with ExitStack() as opened:
        with waiting("Listing"):
            listed = Listed(stream_inputs(args.inputs))
            listed.wait(seconds=_LISTING_SECONDS)
            job = {"model": artifact.digest, "engine": engine}
            ledger = opened.enter_context(Ledger.open(args.out, job, listed, new=args.new))
        if ledger.complete:
            _write_others(args, artifact, listed, ledger)
            say(f"{args.out} holds the scores of all of it already; --new scores it again")
            return 0
        if done := len(ledger.done()):
            say(f"Going on: {done:,}{f' of {len(listed.shards):,}' if listed.ended else ''} shards are there")
        with ray_session(args) as cluster:
            # It imports Ray Data.
            from dermaray.models.bulk import Actors

            actors = Actors.chosen(engine, args.actors, cluster.cpus, cluster.gpus, fed=True)
            # Those of Keras are fed by tasks, which need a CPU.
            cluster.check_actors(actors.count, spare=1 if engine == "keras" else 0)
            ledger.begin()
            rate = _score(args, listed, artifact, actors, ledger)
        summary = _finish(args, listed, artifact, rate, ledger)
    _tell(args, summary)
    return 0


def _tell(args: argparse.Namespace, summary: dict[str, Any]) -> None:
    """Print what came of the run."""
    from jobs.console import say

    rate = summary["rate"]
    say(f"{rate['images']:,} images in {rate['seconds']:.0f} s, by {summary['model']}")
    say(f"{summary['scored']:,} of {summary['images']:,} images are scored")
    alerts = "" if summary["alerts"] is None else f"{summary['alerts']:,} with an alert, "
    say(f"Of these {alerts}{summary['referred']:,} to be referred")
    if summary["dead_letters"]:
        say(f"Not scored: {_counted(summary['dead_letters'])}")
    if summary["ignored_files"]:
        say(f"Passed over, since their names are not those of images: {_counted(summary['ignored_files'])}")
    if args.profile:
        say(f"Seconds of {rate['processes']} processes that hold the model, by {rate['engine']}:")
        for stage, seconds in rate["stages"].items():
            say(f"  {stage:<9}{seconds:>9.1f}{rate['images'] / max(seconds, 1e-9):>12,.1f} images/s")
    asked = {"scores.csv": args.csv, "submission.csv": args.isic_submission, "top.html": args.top}
    say(f"Scores: {', '.join(['scores.parquet', *(name for name in asked if asked[name])])} in {args.out}")


def _counted(kinds: dict[str, int]) -> str:
    """Return counts as they are told, the largest first."""
    most = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    more = [f"{sum(kinds[kind] for kind in most[_MOST_KINDS:]):,} others"] if len(most) > _MOST_KINDS else []
    return ", ".join([*(f"{kinds[kind]:,} {kind}" for kind in most[:_MOST_KINDS]), *more])


def _score(
    args: argparse.Namespace,
    listed: "Listed",
    artifact: "Artifact",
    actors: "Actors",
    ledger: "Ledger",
) -> dict[str, Any]:
    """Score what is missing, tell about it, and return what it took."""
    from dermaray.scoring.run import score_shards
    from dermaray.scoring.watch import Watch
    from jobs.console import tracked

    there = ledger.count_rows()
    watch, images = Watch(ledger, listed, there), 0
    with tracked("Scoring", None) as tracker:

        def progress(count: int) -> None:
            nonlocal images
            images = count
            tracker.update(count, total=None if listed.images is None else listed.images - there)
            watch.tell(count)

        stages = score_shards(listed, artifact, ledger, actors, args.time_limit, progress)
    watch.end()
    return {
        "images": images,
        "seconds": round(watch.seconds, 1),
        "images_per_second": round(images / max(watch.seconds, 1e-9), 1),
        "engine": actors.engine,
        "processes": actors.count,
        "stages": {stage: round(seconds, 3) for stage, seconds in stages.items()},
    }


def _finish(
    args: argparse.Namespace,
    listed: "Listed",
    artifact: "Artifact",
    rate: dict[str, Any],
    ledger: "Ledger",
) -> dict[str, Any]:
    """Write what comes of all rows."""
    from dermaray.data.storage import shown
    from dermaray.errors import DataError
    from dermaray.scoring.ledger import SUMMARY
    from dermaray.scoring.summary import summarise

    counted = summarise(ledger)
    message = counted.pop("message")
    if not counted["images"]:
        ledger.clear()
        raise DataError(f"{', '.join(map(shown, args.inputs))} holds no image")
    if sum(counted["dead_letters"].get(reason, 0) for reason in _NOT_READ) == counted["images"]:
        ledger.clear()
        # Not so many bad images: a place that the cluster's nodes do not see, or a machine that is too small.
        raise DataError(f"none of the {counted['images']:,} images could be read: {message}")
    _write_others(args, artifact, listed, ledger)
    summary = {
        "inputs": [shown(place) for place in args.inputs],
        **counted,
        "ignored_files": listed.ignored,
        "model": artifact.name,
        "model_version": artifact.version,
        "model_digest": artifact.digest,
        "rate": rate,
    }
    ledger.tell(SUMMARY, summary)
    ledger.succeed()
    return summary


def _write_others(args: argparse.Namespace, artifact: "Artifact", listed: "Listed", ledger: "Ledger") -> None:
    """Write what comes of all rows in other forms as well, where that is asked for and was not done."""
    import io

    from dermaray.evaluation.submission import write_submission
    from dermaray.models.rows import CsvWriter, score_schema
    from dermaray.scoring.ledger import GALLERY, SUBMISSION, TABLE

    if args.csv and not ledger.holds(TABLE):
        with ledger.writing(TABLE) as file, CsvWriter(file, artifact) as writer:
            for rows in ledger.rows(score_schema(artifact).names):
                writer.write(rows)
    if args.isic_submission and not ledger.holds(SUBMISSION):
        rows = ledger.scored(["image_id", *artifact.label_set.classes])
        with ledger.writing(SUBMISSION) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            write_submission(text, rows, artifact.label_set)
            text.detach()
    if args.top:
        page = _gallery(args, artifact, listed, ledger)
        with ledger.writing(GALLERY) as file:
            file.write(page.encode())


def _gallery(args: argparse.Namespace, artifact: "Artifact", listed: "Listed", ledger: "Ledger") -> str:
    from cluster.quiet import silent_stderr
    from dermaray.models.own_process import import_keras
    from jobs.console import waiting

    with waiting("Explaining the highest"), silent_stderr(verbose=args.verbose):
        import_keras()
        from dermaray.scoring.gallery import render_gallery

        return render_gallery(ledger, listed.shards, artifact, args.top)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_SHOWN:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {_MOST_SHOWN} was expected. Received: {text}")
    return int(text)


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
