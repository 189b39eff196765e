"""python -m benchmarks.equality                                                        about 18 minutes on 2 CPU cores
python -m benchmarks.equality --seeds 5 --of synchronised --in parts                 a part of it, by more seeds

How far several workers end from one. The same network is trained by 1, 2 and 3 workers for the same 20 global batches
of drawn images, augmentation included. For each tensor the largest difference to one worker's is divided by the
tensor's largest value there; the table has the largest of these ratios over the network's variables (statistics of
batch normalisation among them), those of the optimiser, and over the figures of the epoch. Workers add up in another
order than one does; what of a difference is that rounding, magnified by the training, float64 tells. `parts` is float32
with training.partial_sums.
"""

import argparse
import tempfile
from itertools import product
from pathlib import Path

from benchmarks.runs import difference, trained
from cluster.runtime import connect
from dermaray.config import RunConfig
from dermaray.data.synthetic import generate_dataset
from dermaray.training.state import RunState
from jobs.cli import main as dermaray

STEPS, BATCH, CLASSES = 20, 24, 9
WORKERS = (1, 2, 3)
AUGMENT = (
    {"operation": "flip_random", "probability": 0.5},
    {"operation": "rotate", "probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10},
    {"operation": "random_brightness", "probability": 0.5, "min_factor": 0.8, "max_factor": 1.2},
)
NORMALIZATIONS = {"without": False, "synchronised": True}
PRECISIONS = {
    "float32": {},
    "parts": {"partial_sums": 12},
    "float64": {"precision": "float64"},
}
FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")


def run(folder: Path, seed: int, optimizer: str, batch_normalization: bool, workers: int, precision: str) -> RunState:
    """Train for 20 steps, which are one epoch."""
    config = RunConfig.model_validate(
        {
            "name": "equality",
            "seed": seed,
            "out": str(folder / f"{optimizer}-{batch_normalization}-{workers}"),
            "data": {"manifest": str(folder / "data"), "balance": {"n_per_class": -(-STEPS * BATCH // CLASSES)}},
            "input": {"height": 32, "width": 48},
            "augment": AUGMENT,
            "model": {"options": {"filters": [8, 8], "dense": 16, "batch_normalization": batch_normalization}},
            "training": {"epochs": 1, "global_batch_size": BATCH, "optimizer": optimizer} | PRECISIONS[precision],
            "scaling": {"num_workers": workers},
        }
    )
    state = trained(config, cpus_per_worker=1.0)
    assert state.step == STEPS
    return state


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="so many, from 0")
    parser.add_argument("--of", nargs="+", choices=list(NORMALIZATIONS), default=list(NORMALIZATIONS))
    parser.add_argument("--in", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS), dest="precisions")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, connect(None, num_cpus=8):
        folder = Path(made)
        generate_dataset(folder / "images", 300)
        dermaray(["prepare", str(folder / "images"), "--out", str(folder / "data")])
        print("| seed | optimiser | batch normalisation | precision | workers | network | optimiser's | figures |")
        print("| ---: | --- | --- | --- | ---: | ---: | ---: | ---: |")
        for case in product(range(args.seeds), ("sgd", "adamw"), args.of, args.precisions):
            compare(folder, *case)


def compare(folder: Path, seed: int, optimizer: str, normalization: str, precision: str) -> None:
    """Train on one worker and on several, and print a row for each number of the latter."""
    normalized = NORMALIZATIONS[normalization]
    one, *others = (run(folder, seed, optimizer, normalized, workers, precision) for workers in WORKERS)
    for workers, other in zip(WORKERS[1:], others, strict=True):
        network, slots = difference(one.model, other.model), difference(one.optimizer, other.optimizer)
        (a,), (b,) = one.history, other.history
        figures = max(abs(a[figure] - b[figure]) / a[figure] for figure in FIGURES)
        settings = f"{seed} | {optimizer} | {normalization} | {precision} | {workers}"
        print(f"| {settings} | {network:.1e} | {slots:.1e} | {figures:.1e} |", flush=True)


if __name__ == "__main__":
    main()
