"""python -m jobs.train --config configs/case-study-balanced.yaml [key.path=value ...]

A manifest and a configuration to a model: `model/` (the artifact), `config.yaml` (resolved), `history.csv` (per epoch),
`tensorboard/`. While it runs its state is kept beside OUT; the same command goes on with a run that was killed.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.options import add_run

if TYPE_CHECKING:
    from dermaray.config import RunConfig
    from dermaray.training.runlog import RunLog
    from dermaray.training.state import RunState
    from dermaray.training.store import RunStore
    from dermaray.training.task import WorkerTask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    add_run(parser, "those in configs/", "training.epochs=3 scaling.num_workers=2")


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.quiet import silent_stderr
    from cluster.runtime import check_lasting
    from dermaray.config import load_config
    from dermaray.data.gate import check_gate
    from dermaray.data.manifest import Manifest
    from dermaray.files import atomic_directory, check_output
    from jobs.console import waiting
    from jobs.session import ray_session

    config = load_config(args.config, args.overrides)
    out = Path(config.out)
    for path in _written(config):
        check_lasting(path)
    check_output(out, overwrite=args.overwrite)
    manifest = Manifest.read(Path(config.data.manifest)).for_fold(config.data.fold)
    leaks = check_gate(manifest, allow=args.allow_leaks)
    scaling = config.scaling
    with ray_session(args) as cluster:
        from dermaray.models.own_process import import_keras
        from dermaray.training.runlog import RunLog
        from dermaray.training.runs import EVENTS
        from dermaray.training.store import RunStore
        from dermaray.training.task import plan_run

        least = scaling.min_workers or scaling.num_workers
        cpus = cluster.cpus_per_worker(least, scaling.use_gpu, scaling.cpus_per_worker)
        task = plan_run(config, manifest, cpus, leaks=leaks)
        with RunStore.open(config, manifest.digest, new=args.new) as store, RunLog.open(task, store) as log:
            state = _train(task, store, log)
            with atomic_directory(out, overwrite=args.overwrite) as partial:
                with waiting("Loading TensorFlow"), silent_stderr(verbose=args.verbose):
                    import_keras()
                    from dermaray.training.result import write_run
                with waiting("Fitting decisions on the validation images"), silent_stderr(verbose=args.verbose):
                    write_run(partial, task, state, manifest)
                log.copy_events(partial / EVENTS)
            _say_result(config, state)
            with waiting("Recording the model"):
                log.end(state, out / "model")
            store.remove()
    return 0


def _written(config: "RunConfig") -> Iterator[Path]:
    """Yield the local paths that a run writes to."""
    for place in (config.out, config.checkpoint.storage, config.tracking.mlflow):
        path = (place or "").removeprefix("sqlite:///")
        if path and "://" not in path:
            yield Path(path)


def _say_result(config: "RunConfig", state: "RunState") -> None:
    from jobs.console import say

    best = state.best_epoch
    say(
        f"Trained {len(state.history)} epochs on {config.scaling.num_workers} worker(s). Best: epoch "
        f"{best['epoch']:.0f}, validation loss {best['val_loss']:.3f}, accuracy {best['val_accuracy']:.1%}"
    )
    say(f"Model: {Path(config.out) / 'model'}")


def _train(task: "WorkerTask", store: "RunStore", log: "RunLog") -> "RunState":
    """Train from wherever the run stands, and tell about it."""
    from cluster.relay import relay
    from dermaray.training.run import train
    from jobs.console import say, tracked

    config, batch = task.config, task.config.training.global_batch_size
    found = store.latest()
    if found is not None:
        say(f"Going on from {_position(task, found.state)}, which {store.place} keeps")
    with tracked(f"Training {config.name}", task.train_plan.steps * batch) as tracker:

        def receive(told: dict[str, Any]) -> None:
            tracker.update(told["steps"] * batch, _note(told, config.training.epochs))
            log.tell(told)

        try:
            with relay(receive) as notify:
                state = train(task, store, notify)
        except KeyboardInterrupt:
            if found := store.latest():
                say(f"Kept: {_position(task, found.state)}. The same command goes on; --new begins anew")
            raise
        log.complete(state)
    return state


def _position(task: "WorkerTask", state: "RunState") -> str:
    epochs, steps = divmod(state.step, task.steps_per_epoch)
    within = f" and step {steps} of {task.steps_per_epoch}" if steps else ""
    return f"epoch {epochs} of {task.config.training.epochs}{within}"


def _note(told: dict[str, Any], epochs: int) -> str:
    figures = [f"{name} {told[name]:.3f}" for name in ("loss", "val_loss", "val_accuracy") if name in told]
    return f"epoch {min(told['epochs'] + 1, epochs)}/{epochs}  " + "  ".join(figures)


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("train"))
