"""python -m jobs.preview --config configs/case-study-balanced.yaml --out DIR [--images PATH ...] [key.path=value ...]

What a recipe does to images, before anything is trained with it: `preview.png` (one contact sheet) and `preview.html`.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.options import add_out

if TYPE_CHECKING:
    from dermaray.config import RunConfig
    from dermaray.training.preview import Candidates

MOST = 50
_SKIPPED_NAMED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a YAML file, as those in configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="change one key: seed=1 augment_engine=augmentor"
    )
    parser.add_argument(
        "--images",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="images, or folders of images, to show (default: training images of the configuration's manifest)",
    )
    parser.add_argument("--count", type=_number, default=6, metavar="N", help="images to show (default: 6)")
    parser.add_argument("--draws", type=_number, default=6, metavar="N", help="augmentations of each (default: 6)")
    add_out(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from dermaray.config import load_config
    from dermaray.files import atomic_directory, check_output
    from dermaray.training.preview import PAGE, SHEET, make_preview, read_originals, write_preview
    from jobs.console import say

    images, overrides = _sort(args.images or (), args.overrides)
    config = load_config(args.config, overrides)
    check_output(args.out, overwrite=args.overwrite)
    candidates = _candidates(config, images)
    originals, skipped = read_originals(candidates, config, args.count)
    for problem in skipped[:_SKIPPED_NAMED]:
        say(f"Left out: {problem}")
    if len(skipped) > _SKIPPED_NAMED:
        say(f"Left out: {len(skipped) - _SKIPPED_NAMED} more that cannot be read")
    preview = make_preview(config, originals, args.draws, candidates.source)
    with atomic_directory(args.out, overwrite=args.overwrite) as out:
        write_preview(out, preview)
    say(preview.summary)
    say(f"Contact sheet: {args.out / SHEET}")
    say(f"Page: {args.out / PAGE}")
    return 0


def _sort(images: list[str] | tuple[()], overrides: list[str]) -> tuple[list[str], list[str]]:
    """Tell overrides that follow `--images` from its paths."""
    meant = [word for word in images if "=" in word and not os.path.exists(word)]
    return [word for word in images if word not in meant], [*overrides, *meant]


def _candidates(config: "RunConfig", images: list[str]) -> "Candidates":
    from dermaray.data.manifest import Manifest
    from dermaray.errors import DataError
    from dermaray.training.preview import candidates_of_manifest, candidates_of_paths

    if images:
        return candidates_of_paths([Path(path) for path in images], config.seed)
    try:
        manifest = Manifest.read(Path(config.data.manifest)).for_fold(config.data.fold)
        return candidates_of_manifest(manifest, config.seed)
    except DataError as error:
        raise DataError(f"{error}. Or show other images: --images PATH") from None


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {MOST} was expected. Received: {text}")
    return int(text)


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("preview"))
