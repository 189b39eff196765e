"""python -m jobs.prepare SOURCE --out DIR [--labels kaggle9|isic2018|isic2019]

Images and their labels to a manifest: every image is read once, the unusable are put aside with their reason, the rest
split into train, val and test without parting a lesion.
"""

import argparse
import sys
from pathlib import Path

from dermaray.labels import LABEL_SETS
from jobs.options import add_address, add_out, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument("source", type=Path, help="a folder of class folders, or one with HAM10000's CSV and images")
    parser.add_argument("--labels", choices=list(LABEL_SETS), help="the label set (default: the one that fits)")
    parser.add_argument("--seed", type=seed, default=0, help="decides which images go to which split (default: 0)")
    add_out(parser)
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.data.formats import read_source
    from dermaray.files import atomic_directory, check_output
    from jobs.console import say, tracked
    from jobs.session import ray_session

    check_lasting(args.out)
    check_output(args.out, overwrite=args.overwrite)
    images = read_source(args.source)
    with ray_session(args), atomic_directory(args.out, overwrite=args.overwrite) as out:
        from dermaray.data.prepare import prepare

        with tracked("Reading images", len(images)) as tracker:
            summary = prepare(images, args.source, args.labels, args.seed, out, tracker.advance)
    splits = {s: sum(c[s] for c in summary["images_per_class"].values()) for s in ("train", "val", "test")}
    say(
        f"{summary['usable_images']:,} images of {len(summary['images_per_class'])} classes ({summary['label_set']}): "
        + ", ".join(f"{count:,} {split}" for split, count in splits.items())
    )
    put_aside = ", ".join(f"{count:,} {reason}" for reason, count in summary["quarantined"].items()) or "none"
    say(f"Put aside: {put_aside}")
    say(f"Manifest: {args.out / 'manifest.parquet'}")
    return 0


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("prepare"))
