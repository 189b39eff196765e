"""python -m jobs.score INPUT [INPUT ...] [--model DIR] --out DIR

One row per image of folders, archives, tables, lists or an object store: `scores.parquet`, `scores.csv` and
`summary.json`. An image that cannot be scored has a row too, with its reason.
"""

import argparse
import sys
import time
from collections import Counter

from jobs.options import add_address, add_optional_model, add_out


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
    add_out(parser)
    parser.add_argument("--actors", type=int, default=1, metavar="N", help="processes that hold the model (default: 1)")
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.data.inputs import list_inputs
    from dermaray.errors import DataError
    from dermaray.files import atomic_directory, check_output, write_json
    from dermaray.models.rows import ScoreWriter, score_rows
    from jobs.console import say, tracked
    from jobs.options import chosen_model
    from jobs.session import ray_session

    check_lasting(args.out)
    check_output(args.out, overwrite=args.overwrite)
    artifact = chosen_model(args)
    listing = list_inputs(args.inputs)
    began = time.monotonic()
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with ray_session(args) as cluster, atomic_directory(args.out, overwrite=args.overwrite) as out:
        from dermaray.models.bulk import score_stream

        cluster.check_actors(args.actors)
        stream = score_stream(listing.members, artifact, args.actors)
        with tracked("Scoring", listing.images) as tracker, ScoreWriter(out, artifact) as writer:
            for batch in stream.iter_batches(batch_size=None, batch_format="numpy"):
                rows = score_rows(batch, artifact)
                writer.write(rows)
                statuses.update(rows["status"].to_pylist())
                reasons.update(reason for reason in rows["reason"].to_pylist() if reason)
                tracker.advance(rows.num_rows)
        if not statuses:
            raise DataError(f"{', '.join(args.inputs)} holds no image")
        if reasons["unreadable"] == statuses.total():
            # Not so many bad images: a place that the cluster's nodes do not see.
            raise DataError(f"none of the {statuses.total():,} images could be read: {rows['message'][0]}")
        seconds = time.monotonic() - began
        summary = {
            "inputs": args.inputs,
            "images": statuses.total(),
            "scored": statuses["scored"],
            "dead_letters": dict(sorted(reasons.items())),
            "ignored_files": listing.ignored,
            "model": artifact.name,
            "model_digest": artifact.digest,
            "seconds": round(seconds, 1),
        }
        write_json(out / "summary.json", summary)
    say(f"{summary['scored']:,} of {summary['images']:,} images scored by {artifact.name} in {seconds:.0f} s")
    if reasons:
        say("Not scored: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items())))
    say(f"Scores: {args.out / 'scores.csv'}")
    return 0


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("score"))
