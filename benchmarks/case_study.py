"""python -m benchmarks.case_study [--data ../shared/data/kaggle9] [--out runs/kaggle9]   (three hours on 2 CPU cores)

The case study's three models on the set that it used, cleaned and split before anything is augmented, and what a search
makes of the third: trials have fewer epochs, the model that is measured has as many as the third. Prints the commands,
and a table of the accuracies on the training, the validation and the official test images; each with its 95 % interval
of Wilson. What an earlier call has made is not made again.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("baseline", "dropout", "balanced")
SPLITS = ("train", "val", "test")


def dermaray(out: Path, *words: object) -> None:
    """Run one command, unless its output is there."""
    command = ["dermaray", *map(str, words)]
    print(f"    {shlex.join(command)}", flush=True)
    if out.exists():
        return
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", f"jobs.{words[0]}", *command[2:]], cwd=ROOT, check=True)
    print(f"    # {time.monotonic() - began:.0f} s", flush=True)


def train(config: Path | str, out: Path, data: Path, *overrides: str) -> None:
    """Train a model."""
    dermaray(out, "train", "--config", config, f"data.manifest={data}", f"out={out}", *overrides)


def measure(model: Path, data: Path) -> dict[str, dict[str, Any]]:
    """Return the metrics of a model on every split."""
    for split in SPLITS:
        out = model.parent / f"{model.name}-{split}"
        dermaray(out, "evaluate", "--model", model, "--data", data, "--split", split, "--out", out)
    return {
        split: json.loads((model.parent / f"{model.name}-{split}" / "metrics.json").read_text()) for split in SPLITS
    }


def stated(metrics: dict[str, Any]) -> str:
    """Return an accuracy with its interval, and the balanced accuracy."""
    images, share = metrics["images"], metrics["accuracy"]
    interval = binomtest(round(share * images), images).proportion_ci(method="wilson")
    low, high = (f"{100 * bound:.1f}" for bound in interval)
    return f"{100 * share:.1f} ({low} to {high}); {100 * metrics['balanced_accuracy']:.1f}"


def main() -> None:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/kaggle9"))
    parser.add_argument("--out", type=Path, default=Path("runs/kaggle9"))
    parser.add_argument("--models", nargs="+", choices=[*MODELS, "tuned"], default=[*MODELS, "tuned"])
    args = parser.parse_args()
    source, out = args.data.resolve(), args.out.resolve()
    data = out / "data"
    dermaray(data, "prepare", source, "--out", data)
    results = {}
    for name in args.models:
        if name == "tuned":
            search = out / "search"
            tune = ["tune", "--config", "configs/tune.yaml", f"out={search}", f"fixed.data.manifest={data}"]
            dermaray(search, *tune)
            train(search / "best.yaml", out / name, data, "training.epochs=30")
        else:
            train(f"configs/case-study-{name}.yaml", out / name, data)
        results[name] = measure(out / name, data)
    images = [results[args.models[0]][split]["images"] for split in SPLITS]
    heads = [f"{split}, {count:,} images" for split, count in zip(SPLITS, images, strict=True)]
    print(f"\n| model | {' | '.join(heads)} |\n| --- | --- | --- | --- |")
    for name, splits in results.items():
        print(f"| {name} | {' | '.join(stated(splits[split]) for split in SPLITS)} |")


if __name__ == "__main__":
    main()
