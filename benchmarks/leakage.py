"""DERMARAY_DATA=../shared/data python benchmarks/leakage.py [--out runs/leakage]   (about 50 min on 2 CPU cores)

What "augment, then split" does to a validation accuracy. The same images and the same network, by two protocols:

- The case study's: of every class 500 augmented copies are written beside the originals, and all files are split at
  random, 80 to 20. Nearly every validation image then has a sibling in training: its parent, or a copy of the same.
- The honest one: `dermaray prepare` splits; training draws as many images an epoch, augmented by the same recipe.

Both models are also measured on the same images of the official test folder, those that the honest manifest keeps. The
intervals are Wilson's and take images as independent, which copies are not. The case study trained at 180 x 180 pixels
for 30 epochs; the defaults here, 96 x 96 and 20, are for a machine of 2 CPU cores. `DERMARAY_DATA/kaggle9` holds the
ISIC images of the case study as `Train` and `Test`; `DERMARAY_DATA/isic2019`, where it is there, the honest protocol's
reference. OUT gets `leakage.json` and what each job wrote, each model's `train/config.yaml` among it.
"""

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import Augmentor
import numpy as np
from scipy.stats import binomtest

from dermaray.data.gate import find_leaks
from dermaray.data.manifest import Manifest
from dermaray.data.source import is_image_name
from dermaray.errors import DermarayError
from dermaray.files import atomic_directory, write_json

ROOT = Path(__file__).resolve().parent.parent
STUDY, HONEST = "augment-then-split", "split-then-augment"
ROTATE = {"probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10}
COPIES_PER_CLASS = 500
KEEP_ALL = [f"policies.{f}=keep" for f in ("label_conflict", "exact_duplicate", "augmented_copy", "split_leak")]
# Where one picture has two labels, the reference decides; without one, both images go.
RELABEL = ["policies.label_conflict=relabel", "policies.reference_contradiction=relabel"]
BONDS = ("parent", "lesion", "patient", "file", "duplicate cluster", "group")
REFUSED = 2


class Jobs:
    """Runs jobs as a user does; `steps` keeps the command and the seconds of each."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def __call__(self, job: str, *words: object, refused: bool = False) -> str:
        """Run a job with `--overwrite`; return why it refused where it should; end the script where it fails."""
        arguments = ["-m", f"jobs.{job}", *map(str, words), "--overwrite"]
        command = shlex.join(["python", *arguments])
        print(f"+ {command}", flush=True)
        began = time.monotonic()
        done = subprocess.run([sys.executable, *arguments], stderr=subprocess.PIPE if refused else None, text=True)
        seconds = round(time.monotonic() - began, 1)
        print(f"  {seconds} s", flush=True)
        self.steps.append({"command": command, "seconds": seconds})
        if done.returncode != (REFUSED if refused else 0):
            raise SystemExit(f"{command} ended with exit code {done.returncode}. {done.stderr or ''}")
        return (done.stderr or "").strip()


def read_json(path: Path) -> Any:
    """Read what a job wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def link(images: Sequence[Path], out: Path) -> None:
    """Link images into class folders of their own names; a link to an image is followed first."""
    for image in images:
        folder = out / image.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / image.name).symlink_to(image.resolve())


def images_of(folder: Path) -> list[Path]:
    """Return the images in the class folders of a folder, sorted by class and name."""
    return sorted(path for path in folder.glob("*/*") if is_image_name(path))


def write_copies(train: Path, out: Path, seed: int) -> None:
    """Link every class of the training folder into `out`, and write its augmented copies beside the links."""
    random.seed(seed)
    np.random.seed(seed)
    # Augmentor names each copy by a random UUID, and the names decide the split.
    names = random.Random(seed)
    named = patch("uuid.uuid4", lambda: uuid.UUID(int=names.getrandbits(128), version=4))
    link(images_of(train), out)
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere), named:
            pipeline = Augmentor.Pipeline(str(folder), output_directory=".")
            # It lists files in whatever order the file system has them.
            pipeline.augmentor_images.sort(key=lambda image: image.image_path)
            pipeline.rotate(**ROTATE)
            pipeline.sample(COPIES_PER_CLASS, multi_threaded=False)


def split_by_file(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Split sorted files as `keras.utils.image_dataset_from_directory(validation_split=0.2, seed=123)` does."""
    shuffled = list(files)
    np.random.RandomState(123).shuffle(shuffled)  # type: ignore[arg-type]
    held_out = len(shuffled) // 5
    return {"Train": shuffled[:-held_out], "Validation": shuffled[-held_out:]}


def make_case_study(source: Path, augmented: Path, folder: Path, seed: int) -> None:
    """Write the case study's files into `augmented`, and lay them out in `folder` as it had them."""
    print(f"Writing {COPIES_PER_CLASS} copies of every class to {augmented}", flush=True)
    with atomic_directory(augmented, overwrite=True) as out:
        write_copies(source / "Train", out, seed)
    with atomic_directory(folder, overwrite=True) as out:
        for split, files in {**split_by_file(images_of(augmented)), "Test": images_of(source / "Test")}.items():
            link(files, out / split)


def sibling_share(manifest: Manifest) -> float:
    """Return the share of validation images whose parent, or another copy of it, is in the same class of training."""
    train, val = (manifest.rows(split).select(["label", "parent_id"]).to_pylist() for split in ("train", "val"))
    return sum(row in train for row in val if row["parent_id"]) / len(val)


def prepare_case_study(jobs: Jobs, study: Path, folder: Path) -> dict[str, Any]:
    """Prepare the study's files as it had them; return what leaks, and what default policies would have put aside."""
    jobs("prepare", folder, "--labels", "kaggle9", "--out", study / "data", *KEEP_ALL)
    jobs("prepare", folder, "--labels", "kaggle9", "--out", study / "data-by-default")
    manifest = Manifest.read(study / "data")
    leaks = {bond: [leak for leak in find_leaks(manifest) if leak.startswith(f"{bond} ")] for bond in BONDS}
    return {
        "prepared": read_json(study / "data/summary.json"),
        "prepared_by_default": read_json(study / "data-by-default/summary.json"),
        "leaks": {bond: {"count": len(found), "example": found[0]} for bond, found in leaks.items() if found},
        "sibling_share": sibling_share(manifest),
    }


def training(protocol: Path, args: argparse.Namespace, *overrides: str) -> list[str]:
    """Return the arguments of `dermaray train` for the network that both protocols train."""
    files = [f"name={protocol.name}", f"out={protocol / 'train'}", f"data.manifest={protocol / 'data'}"]
    sizes = {"input.height": args.size, "input.width": args.size, "training.epochs": args.epochs, "seed": args.seed}
    return ["--config", "configs/case-study-balanced.yaml", *files, *(f"{k}={v}" for k, v in sizes.items()), *overrides]


def train_images(protocol: Path) -> dict[str, int]:
    """Return how many training images each class has, of those that have any."""
    classes = read_json(protocol / "data/summary.json")["images_per_class"]
    return {name: counts["train"] for name, counts in classes.items() if counts["train"]}


def train_both(jobs: Jobs, study: Path, honest: Path, args: argparse.Namespace) -> str:
    """Train both models; return what the gate said before it was told to let the case study's data pass."""
    of_study = training(study, args, "data.balance=none", "augment=[]")
    refusal = jobs("train", *of_study, refused=True)
    jobs("train", *of_study, "--allow-leaks")
    # As many images an epoch as the study has.
    per_class = round(sum(train_images(study).values()) / len(train_images(honest)))
    balance, recipe = json.dumps({"n_per_class": per_class}), json.dumps([{"operation": "rotate", **ROTATE}])
    jobs("train", *training(honest, args, f"data.balance={balance}", f"augment={recipe}"))
    return refusal


def measure(jobs: Jobs, protocol: Path, data: Path, split: str, on: str) -> dict[str, Any]:
    """Evaluate a protocol's model on a split of its own or the other's data; return a row of the table."""
    out = protocol / f"{split}-of-{data.name}"
    allow = ["--allow-leaks"] if protocol.name == STUDY else []
    jobs("evaluate", "--model", protocol / "train", "--data", data / "data", "--split", split, "--out", out, *allow)
    metrics = read_json(out / "metrics.json")
    figures = {name: metrics[name] for name in ("images", "accuracy", "balanced_accuracy")}
    images, right = metrics["images"], round(metrics["accuracy"] * metrics["images"])
    interval = binomtest(right, images).proportion_ci(0.95, method="wilson")
    return {"protocol": protocol.name, "on": on, **figures, "accuracy_95": [float(interval.low), float(interval.high)]}


def run(args: argparse.Namespace, source: Path, reference: Path) -> dict[str, Any]:
    """Run both protocols and return what `leakage.json` holds."""
    jobs, study, honest = Jobs(), args.out / STUDY, args.out / HONEST
    make_case_study(source, args.out / "augmented", args.out / "case-study", args.seed)
    of_study = prepare_case_study(jobs, study, args.out / "case-study")
    compared = ["--reference", reference, *RELABEL] if reference.is_dir() else []
    jobs("prepare", source, "--labels", "kaggle9", *compared, "--out", honest / "data")
    refusal = train_both(jobs, study, honest, args)
    own, clean = "its own validation images", "official test folder, cleaned"
    rows = [
        measure(jobs, study, study, "val", own),
        measure(jobs, honest, honest, "val", own),
        measure(jobs, study, study, "test", "official test folder, as it is"),
        measure(jobs, study, honest, "test", clean),
        measure(jobs, honest, honest, "test", clean),
    ]
    return {
        "settings": {"size": args.size, "epochs": args.epochs, "seed": args.seed, "cpus": os.cpu_count()},
        STUDY: {**of_study, "gate": {"exit_code": REFUSED, "message": refusal}},
        HONEST: {"prepared": read_json(honest / "data/summary.json")},
        "results": rows,
        "steps": jobs.steps,
    }


def report(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = ["| protocol | measured on | images | accuracy | 95 % interval | balanced accuracy |", "|" + " --- |" * 6]
    for row in result["results"]:
        interval = " to ".join(f"{bound:.1%}" for bound in row["accuracy_95"])
        accuracy = f"{row['accuracy']:.1%} | {interval} | {row['balanced_accuracy']:.3f}"
        lines.append(f"| {row['protocol'].replace('-', ' ')} | {row['on']} | {row['images']:,} | {accuracy} |")
    study, classes = result[STUDY], result[HONEST]["prepared"]["images_per_class"]
    aside = ", ".join(f"{n:,} {finding}" for finding, n in study["prepared_by_default"]["quarantined"].items())
    lost = ", ".join(name for name, counts in classes.items() if not counts["train"]) or "none"
    crossing = ", ".join(f"{found['count']:,} by {bond}" for bond, found in study["leaks"].items())
    lines += [
        "",
        f"- Validation images of the case study with a sibling in its training part: {study['sibling_share']:.1%}",
        f"- What crosses its splits: {crossing}; for one, {study['leaks']['parent']['example']}",
        f"- Classes of which the honest protocol has no image to train on: {lost}",
        f"- Put aside by default policies, of its files: {aside}",
        f"- `train` without `--allow-leaks` ends with {study['gate']['exit_code']}: {study['gate']['message']}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="What `augment, then split` does to a validation accuracy.")
    parser.add_argument("--out", type=Path, default=Path("runs/leakage"), metavar="DIR", help="(default: runs/leakage)")
    parser.add_argument("--size", type=int, default=96, help="pixels of the input's edge (default: 96)")
    parser.add_argument("--epochs", type=int, default=20, help="(default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of copies, weights and order (default: 0)")
    args = parser.parse_args()
    os.chdir(ROOT)
    data = Path(os.environ.get("DERMARAY_DATA", "../shared/data"))
    if not all((data / "kaggle9" / folder).is_dir() for folder in ("Train", "Test")):
        parser.error(f"DERMARAY_DATA must hold kaggle9/Train and kaggle9/Test. Received: {data}")
    try:
        result = run(args, data / "kaggle9", data / "isic2019")
    except DermarayError as error:
        parser.error(str(error))
    write_json(args.out / "leakage.json", result)
    print("\n" + report(result))


if __name__ == "__main__":
    main()
