"""python -m jobs.explain INPUT --model DIR --out DIR [--class NAME]

Where in each image of a folder, a zip or a tar the model sees what speaks for its answer, or for another class: one PNG
per image, the image as the model takes it and beside it the same under a Grad-CAM map; and `explanations.csv`.
"""

import argparse
import sys
from pathlib import Path

from jobs.options import add_model, add_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument("input", type=Path, help="a folder (with all below it), a zip, a tar, or one image")
    add_model(parser)
    add_out(parser)
    parser.add_argument(
        "--class", dest="name", metavar="NAME", help="the class to explain (default: each image's answer)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.quiet import silent_stderr
    from dermaray.data.archive import list_members
    from dermaray.errors import DataError
    from dermaray.files import atomic_directory, check_output
    from dermaray.models.artifact import open_artifact
    from dermaray.models.own_process import import_keras
    from jobs.console import say, tracked, waiting

    check_output(args.out, overwrite=args.overwrite)
    artifact = open_artifact(args.model.resolve())
    artifact.verify()
    explained = None if args.name is None else artifact.label_set.index(args.name)
    listing = list_members(args.input.resolve())
    with waiting("Loading TensorFlow"), silent_stderr(verbose=args.verbose):
        import_keras()
        from dermaray.models.explanations import write_explanations
    with atomic_directory(args.out, overwrite=args.overwrite) as out:
        with tracked("Explaining", listing.images) as tracker, silent_stderr(verbose=args.verbose):
            written, skipped = write_explanations(out, listing.members, artifact, explained, tracker.advance)
        if not written:
            raise DataError(f"{args.input} holds no image that can be explained")
    say(f"{written:,} images explained" + (f", {skipped:,} could not be read" if skipped else ""))
    say(f"Explanations: {args.out}")
    return 0


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("explain"))
