"""python -m jobs.prepare SOURCE --out DIR [--reference CSV ...] [--config FILE] [key.path=value ...]

Images and their labels to a manifest: every image is read once and audited, what policies put aside is listed with its
reason, the rest is split without parting a lesion, a patient or a picture that is there twice.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.options import add_address, add_out, add_preparing, preparing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument("source", help="a folder, or an object store's URI (s3://, gs://), of images and their labels")
    add_preparing(parser)
    add_out(parser)
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.data.classes import check_classes, choose_label_set, merged_labels
    from dermaray.data.formats import read_reference, read_source
    from dermaray.data.storage import absolute
    from dermaray.files import atomic_directory, check_output
    from jobs.console import say, tracked
    from jobs.session import ray_session

    check_lasting(args.out)
    check_output(args.out, overwrite=args.overwrite)
    config = preparing(args)
    images, reference = read_source(args.source), read_reference(config.reference)
    label_set = choose_label_set(images, config.labels)
    check_classes(images, label_set, config)
    for name, labels in merged_labels(images, label_set).items():
        say(f"Filed under {name}: {', '.join(labels)}")
    with ray_session(args), atomic_directory(args.out, overwrite=args.overwrite) as out:
        from dermaray.data.prepare import prepare

        with tracked("Reading images", len(images)) as tracker:
            summary = prepare(images, label_set, reference, absolute(args.source), config, out, tracker.advance)
    if config.reference:
        say(f"Compared with the reference: {summary['reference_images']:,} images")
    _report(summary, args.out, say)
    return 0


def _report(summary: dict[str, Any], out: Path, say: Callable[[str], None]) -> None:
    classes = summary["images_per_class"]
    splits = {s: sum(c[s] for c in classes.values()) for s in ("train", "val", "test")}
    say(
        f"{summary['usable_images']:,} of {summary['source_images']:,} images can be used, of {len(classes)} classes "
        f"({summary['label_set']}): " + ", ".join(f"{count:,} {split}" for split, count in splits.items() if count)
    )
    put_aside = ", ".join(f"{count:,} {finding}" for finding, count in summary["quarantined"].items()) or "none"
    say(f"Put aside: {put_aside}")
    if summary["relabelled"]:
        say("Relabelled: " + ", ".join(f"{count:,} {finding}" for finding, count in summary["relabelled"].items()))
    say(f"Audit: {out / 'audit.html'}")
    say(f"Manifest: {out / 'manifest.parquet'}")


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("prepare"))
