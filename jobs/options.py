"""Arguments that several jobs take, stated once."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from dermaray.labels import LABEL_SETS

if TYPE_CHECKING:
    from dermaray.data.manifest import Manifest
    from dermaray.data.settings import PrepareConfig
    from dermaray.models.artifact import Artifact


REFERENCE = Path(__file__).resolve().parents[1] / "models" / "reference"
"""The model that comes with the checkout."""


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add `--address`: which Ray the job runs on."""
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="auto: the Ray cluster of this node (default: what RAY_ADDRESS names, else a Ray of its own)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add `--model`: the artifact to use."""
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="a model, or the folder of the run that made it"
    )


def add_optional_model(parser: argparse.ArgumentParser) -> None:
    """Add `--model` for a job that does without, by the reference model; `chosen_model` opens it."""
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="a model, or the folder of the run that made it (default: the reference model in models/reference)",
    )


def chosen_model(args: argparse.Namespace) -> "Artifact":
    """Return the model that the argument of `add_optional_model` names, verified; say so where that is the reference.

    Raises:
        ArtifactError: There is none, or it is damaged.
    """
    from dermaray.errors import ArtifactError
    from dermaray.models.artifact import open_artifact
    from jobs.console import say

    if args.model is None and not REFERENCE.exists():
        raise ArtifactError(f"--model is missing, and there is no reference model: {REFERENCE} does not exist")
    artifact = open_artifact((args.model or REFERENCE).resolve())
    artifact.verify()
    if args.model is None:
        say(f"No --model given: using the reference model. What it is for, and not: {REFERENCE / 'MODEL_CARD.md'}")
    return artifact


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add `--out` and `--overwrite`: where the result goes."""
    parser.add_argument("--out", type=folder, required=True, metavar="DIR", help="the folder to write")
    add_overwrite(parser)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`: replace an earlier result."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an earlier result there; a folder that dermaray did not write is never replaced",
    )


def add_run(parser: argparse.ArgumentParser, example: str, override: str) -> None:
    """Add what a job takes that writes where its configuration says and may be gone on with.

    Args:
        parser: Of the job.
        example: Files like the one that it takes.
        override: An example of a changed key.
    """
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help=f"a YAML file, as {example}")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=f"change one key: {override}")
    add_allow_leaks(parser)
    add_overwrite(parser)
    parser.add_argument(
        "--new",
        action="store_true",
        help="start over instead of resuming what an interrupted command left, folds that had ended included",
    )
    add_address(parser)


def add_preparing(parser: argparse.ArgumentParser) -> None:
    """Add what a `PrepareConfig` is made of; `preparing` makes it."""
    add_comparing(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="change one key: policies.near_duplicate=drop splits.folds=5 (see configs/prepare.yaml)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML file, as configs/prepare.yaml")
    parser.add_argument("--seed", type=seed, help="decides which images go to which split (default: 0)")


def add_comparing(parser: argparse.ArgumentParser) -> None:
    """Add `--labels` and `--reference`: what labels mean, and what they are compared with."""
    parser.add_argument("--labels", choices=list(LABEL_SETS), help="the label set (default: the one that fits)")
    parser.add_argument(
        "--reference",
        action="append",
        metavar="CSV",
        help="a ground truth to compare with: a CSV, or a folder of CSVs; may be given more than once",
    )


def preparing(args: argparse.Namespace) -> "PrepareConfig":
    """Return the `PrepareConfig` that the arguments of `add_preparing` describe; options win over the file.

    Raises:
        ConfigError: A key or a value does not fit.
    """
    from dermaray.data.settings import PrepareConfig
    from dermaray.yaml_config import load_yaml_config

    options = {"labels": args.labels, "splits.seed": args.seed, "reference": args.reference}
    overrides = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    return load_yaml_config(PrepareConfig, args.config, [*args.overrides, *overrides])


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add `--data` and `--fold`: a manifest; `manifest_of` reads it."""
    parser.add_argument("--data", type=Path, required=True, metavar="MANIFEST", help="what dermaray prepare wrote")
    parser.add_argument("--fold", type=int, metavar="I", help="of data in folds, the one that is the val split")


def add_measured(parser: argparse.ArgumentParser) -> None:
    """Add `--data`, `--fold` and `--split`: the images to measure on."""
    add_data(parser)
    parser.add_argument("--split", choices=["train", "val", "test"], default="test", help="(default: test)")


def manifest_of(args: argparse.Namespace) -> "Manifest":
    """Return the manifest that the arguments of `add_data` name.

    Raises:
        DataError: It is none, or has no such fold.
    """
    from dermaray.data.manifest import Manifest

    manifest = Manifest.read(args.data)
    return manifest if args.fold is None else manifest.fold(args.fold)


def add_allow_leaks(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-leaks`: pass the gate."""
    parser.add_argument(
        "--allow-leaks",
        action="store_true",
        help="continue although the splits leak; the result says so for good",
    )


def folder(text: str) -> Path:
    """Read the path of a local folder."""
    from dermaray.files import check_local

    try:
        return Path(check_local(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def seed(text: str) -> int:
    """Read a seed: a whole number from 0 to 2**32 - 1, which is what every generator takes."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"a whole number from 0 to {2**32 - 1} was expected. Received: {text}")
    return int(text)
