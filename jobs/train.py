"""python -m jobs.train --config configs/case-study-balanced.yaml [key.path=value ...]

A manifest and a configuration to a model: `model/` (the artifact), `config.yaml` (resolved), `history.csv` (per epoch).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from jobs.options import add_address, add_allow_leaks, add_overwrite


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a YAML file, as those in configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="change one key: training.epochs=3 scaling.num_workers=2"
    )
    add_allow_leaks(parser)
    add_overwrite(parser)
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.quiet import silent_stderr
    from cluster.relay import relay
    from cluster.runtime import check_lasting
    from dermaray.config import load_config
    from dermaray.data.gate import check_gate
    from dermaray.data.manifest import Manifest
    from dermaray.files import atomic_directory, check_output
    from jobs.console import say, tracked, waiting
    from jobs.session import ray_session

    config = load_config(args.config, args.overrides)
    out = Path(config.out)
    check_lasting(out)
    check_output(out, overwrite=args.overwrite)
    manifest = Manifest.read(Path(config.data.manifest)).for_fold(config.data.fold)
    leaks = check_gate(manifest, allow=args.allow_leaks)
    scaling = config.scaling
    with ray_session(args) as cluster:
        cpus = cluster.cpus_per_worker(scaling.num_workers, scaling.use_gpu, scaling.cpus_per_worker)
        with waiting("Loading TensorFlow"), silent_stderr(verbose=args.verbose):
            from dermaray.training.run import plan_run, train

        task = plan_run(config, manifest, scaling.num_workers * cpus, leaks=leaks)
        batch = config.training.global_batch_size
        with (
            atomic_directory(out, overwrite=args.overwrite) as partial,
            tracked(f"Training {config.name}", task.train_plan.steps * batch) as tracker,
            relay(lambda told: tracker.update(told["steps"] * batch, _note(told, config.training.epochs))) as notify,
        ):
            history = train(task, partial, cpus, notify)
    best = min(history, key=lambda epoch: epoch["val_loss"])
    say(
        f"Trained {len(history)} epochs on {scaling.num_workers} worker(s). Best: epoch {best['epoch']:.0f}, "
        f"validation loss {best['val_loss']:.3f}, accuracy {best['val_accuracy']:.1%}"
    )
    say(f"Model: {out / 'model'}")
    return 0


def _note(told: dict[str, Any], epochs: int) -> str:
    figures = [f"{name} {told[name]:.3f}" for name in ("loss", "val_loss", "val_accuracy") if name in told]
    return f"epoch {min(told['epochs'] + 1, epochs)}/{epochs}  " + "  ".join(figures)


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("train"))
