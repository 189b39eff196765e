"""python -m benchmarks.chaos_train [--kills 10] [--workers 2] [--seed 0]   (about 25 minutes on 2 CPU cores)

Kill a training run with SIGKILL at seeded steps: one of its workers, its driver, or all of Ray in turn. A run whose
driver was lost is taken up by the same command. Each has to end, with the weights of a run that nobody disturbed:
of each tensor the largest difference is divided by the tensor's largest weight. That a run is over before it could be
killed ends the benchmark.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.processes import VICTIMS, below, kill, wait_for_the_end
from benchmarks.runs import difference, step_kept
from dermaray.config import RunConfig
from dermaray.data.manifest import Manifest
from dermaray.data.synthetic import generate_dataset
from dermaray.models.artifact import open_artifact
from dermaray.training.task import plan_run
from dermaray.yaml_config import load_yaml_config

ROOT = Path(__file__).resolve().parents[1]
LONGEST_SECONDS, MOST_COMMANDS = 300, 5
CONFIG = """
name: chaos
out: {folder}/out
seed: 7
data: {{manifest: {folder}/data, balance: equal}}
input: {{height: 64, width: 64}}
augment:
  - {{operation: flip_random, probability: 0.5}}
  - {{operation: rotate, probability: 0.7, max_left_rotation: 10, max_right_rotation: 10}}
model: {{options: {{filters: [16, 16, 32], dense: 64, dropout: 0.2, batch_normalization: true}}}}
training: {{epochs: 16, head_epochs: 1, global_batch_size: 24, optimizer: adamw, ema: 0.9, partial_sums: 12}}
checkpoint: {{every_steps: 5}}
scaling: {{num_workers: {workers}}}
"""


def steps_of(config: Path, data: Path) -> int:
    """Return how many steps a run takes."""
    return plan_run(load_yaml_config(RunConfig, config), Manifest.read(data), cpus_per_worker=1).train_plan.steps


def weights(folder: Path) -> list[np.ndarray]:
    """Return the weights that a run ended with."""
    return [np.asarray(w) for w in open_artifact(folder / "out").load_model().get_weights()]


def disturbed(train: list[str], folder: Path, what: str, step: int, rng: random.Random) -> int:
    """Train, kill `what` when the checkpoint of a step is there, and repeat the command until it succeeds.

    Returns:
        How many commands that took.
    """
    for commands in range(1, MOST_COMMANDS + 1):
        process = subprocess.Popen(train, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started: set[int] = set()
        if commands == 1:
            while step_kept(folder / ".out.unfinished") < step and process.poll() is None:
                time.sleep(0.02)
            # Otherwise it would always be just after a checkpoint.
            time.sleep(rng.uniform(0, 0.5))
            started = set(below(process.pid))
            # A worker that Ray replaces just now is not there for a moment.
            while process.poll() is None and not kill(what, process.pid, b"RayTrainWorker", rng):
                time.sleep(0.05)
            if process.returncode is not None:
                raise SystemExit(f"the run was over before {what} could be killed after step {step}")
        if wait_for_the_end(process, started, LONGEST_SECONDS) == 0:
            return commands
    raise SystemExit(f"the run did not end in {MOST_COMMANDS} commands after the kill of {what}")


def main() -> None:
    """Print a row for every kill; exit with 1 where a run did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        generate_dataset(folder / "images", 300)
        (folder / "config.yaml").write_text(CONFIG.format(folder=folder, workers=args.workers))
        prepare = [sys.executable, "-m", "jobs.prepare", str(folder / "images"), "--out", str(folder / "data")]
        subprocess.run(prepare, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        train = [sys.executable, "-m", "jobs.train", "--config", str(folder / "config.yaml")]
        began = time.monotonic()
        subprocess.run(train, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        undisturbed, seconds = weights(folder), time.monotonic() - began
        steps = steps_of(folder / "config.yaml", folder / "data")
        print(f"undisturbed: {steps} steps, {seconds:.0f} s\n")
        print("| kill | of | after step | commands | s | largest difference |")
        print("| ---: | --- | ---: | ---: | ---: | ---: |")
        worst = 0.0
        for number in range(args.kills):
            shutil.rmtree(folder / "out")
            what, after = VICTIMS[number % len(VICTIMS)], rng.randint(1, steps * 3 // 4)
            began = time.monotonic()
            commands = disturbed(train, folder, what, after, rng)
            took = time.monotonic() - began
            apart = difference(undisturbed, weights(folder))
            worst = max(worst, apart)
            print(f"| {number + 1} | {what} | {after} | {commands} | {took:.0f} | {apart:.1e} |", flush=True)
    print(f"\nlargest difference of all: {worst:.1e}")
    sys.exit(worst > 0)


if __name__ == "__main__":
    main()
