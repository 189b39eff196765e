"""Arguments that several jobs take, stated once."""

import argparse
from pathlib import Path


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add `--address`: which Ray the job runs on."""
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="the Ray cluster to join: auto, or ray://HOST:10001 (default: RAY_ADDRESS, else a Ray of its own)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add `--model`: the artifact to use."""
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="a model, or the folder of the run that made it"
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add `--out` and `--overwrite`: where the result goes."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    add_overwrite(parser)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`: replace an earlier result."""
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder if it holds files")


def seed(text: str) -> int:
    """Read a seed: a whole number from 0 to 2**32 - 1, which is what every generator takes."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"a whole number from 0 to {2**32 - 1} was expected. Received: {text}")
    return int(text)
