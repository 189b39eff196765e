"""python -m jobs.audit MANIFEST|SOURCE --out DIR [--reference CSV ...]

What is wrong with a data set, without changing it: `audit.json` and `audit.html`. Exit code 3 where something that
belongs together is in two splits.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.options import add_address, add_comparing, add_out

LEAKS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument("data", help="a manifest, or a source as dermaray prepare takes it")
    add_comparing(parser)
    add_out(parser)
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.data.classes import choose_label_set
    from dermaray.data.formats import read_reference, read_source
    from dermaray.data.gate import find_leaks
    from dermaray.data.manifest import Manifest, is_manifest
    from dermaray.data.settings import PrepareConfig
    from dermaray.data.storage import absolute
    from dermaray.errors import DataError
    from dermaray.files import atomic_directory, check_output
    from jobs.console import say, tracked
    from jobs.session import ray_session

    check_lasting(args.out)
    check_output(args.out, overwrite=args.overwrite)
    config = PrepareConfig(reference=tuple(args.reference or ()))
    reference = read_reference(config.reference)
    manifest = Manifest.read(Path(args.data)) if is_manifest(args.data) else None
    if manifest and args.labels:
        raise DataError(f"a manifest has its label set, {manifest.label_set.name}. --labels is for sources")
    images = manifest.source_images() if manifest else read_source(args.data)
    label_set = manifest.label_set if manifest else choose_label_set(images, args.labels)
    with ray_session(args), atomic_directory(args.out, overwrite=args.overwrite) as out:
        from dermaray.data.audit_report import audit_source, with_leaks, write_audit

        with tracked("Reading images", len(images)) as tracker:
            audit = audit_source(images, label_set, reference, absolute(args.data), config, tracker.advance)
        if manifest:
            # Its own columns may know of a bond that its images no longer show.
            audit = with_leaks(audit, find_leaks(manifest))
        write_audit(out, audit)
    return _report(audit, args.out, say)


def _report(audit: dict[str, Any], out: Path, say: Callable[[str], None]) -> int:
    for finding in audit["findings"]:
        if finding["cases"]:
            cases = f"{len(finding['cases']):,} cases, {finding['images']:,} images"
            say(f"{finding['finding']}: {cases} ({finding['title'].lower()})")
    leaks = audit["gate"]["leaks"]
    split = any(counts[name] for counts in audit["classes"].values() for name in ("train", "val", "test"))
    if leaks:
        say(f"{len(leaks):,} leaks between splits, such as {leaks[0]}")
    else:
        say("No leak between splits" if split else "Not split yet")
    say(f"Audit: {out / 'audit.html'}")
    return LEAKS if leaks else 0


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("audit"))
