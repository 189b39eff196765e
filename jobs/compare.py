"""python -m jobs.compare MODEL MODEL --data MANIFEST [--split test] [--fold I] --out DIR

Two models on the same images: `comparison.json` and `comparison.html`, with the difference in every figure and whether
it is more than chance.
"""

import argparse
import sys
from pathlib import Path

from jobs.options import add_address, add_allow_leaks, add_measured, add_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    for name, which in (("first", "a model, or the folder of its run"), ("second", "the one to compare with it")):
        parser.add_argument(name, type=Path, help=which)
    add_measured(parser)
    add_allow_leaks(parser)
    add_out(parser)
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.evaluation.checks import check_measurable
    from dermaray.files import atomic_directory, check_output
    from dermaray.models.artifact import open_artifact
    from jobs.console import say, tracked
    from jobs.options import manifest_of
    from jobs.session import ray_session

    check_lasting(args.out)
    check_output(args.out, overwrite=args.overwrite)
    first, second = (open_artifact(path.resolve()) for path in (args.first, args.second))
    manifest = manifest_of(args)
    for artifact in (first, second):
        artifact.verify()
    leaks = check_measurable([first, second], manifest, args.split, allow_leaks=args.allow_leaks)
    with ray_session(args) as cluster, atomic_directory(args.out, overwrite=args.overwrite) as out:
        from dermaray.evaluation.compare import compare
        from dermaray.evaluation.tables import HEADLINES

        cluster.check_actors(1)
        with tracked("Comparing", 2 * manifest.rows(args.split).num_rows) as tracker:
            found = compare((first, second), manifest, args.split, leaks, out, tracker.advance)
    one, other = (f"{artifact.name} ({artifact.digest[:8]})" for artifact in (first, second))
    say(f"{other} less {one}, the first, on {found['images']:,} {args.split} images, with 95 % intervals:")
    for name, title in HEADLINES.items():
        row = found["figures"][name]
        if row["difference"] is not None:
            told = f" ({row['interval'][0]:+.3f} to {row['interval'][1]:+.3f})" if row["interval"] else ""
            say(f"  {title:22} {row['difference']:+.3f}{told}" + (f", {row['better']} better" if row["better"] else ""))
    say(f"Comparison: {args.out / 'comparison.html'}")
    return 0


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("compare"))
