"""Training runs as a person follows them: one, or several of which one model is made; called once Ray is there."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import compress
from pathlib import Path
from typing import Any

from cluster.quiet import silent_stderr
from cluster.relay import relay
from cluster.runtime import Cluster
from dermaray.config import RunConfig, dump_config, load_config
from dermaray.data.folds import folds_of_training
from dermaray.data.manifest import Manifest
from dermaray.errors import ConfigError
from dermaray.evaluation.checks import check_measurable
from dermaray.files import atomic_directory, check_output
from dermaray.models.artifact import open_artifact
from dermaray.models.own_process import import_keras
from dermaray.training.ensembles import EnsembleConfig, write_ensemble
from dermaray.training.run import train
from dermaray.training.runlog import Figures, RunLog
from dermaray.training.runs import EVENTS
from dermaray.training.state import RunState
from dermaray.training.store import RunStore
from dermaray.training.task import WorkerTask, plan_run
from dermaray.training.unfinished import settings_of
from jobs.console import how_to_go_on, say, tracked, waiting

FIGURES = ("loss", "val_loss", "val_accuracy")
"""What is said of a run while it trains."""


def train_one(
    config: RunConfig, manifest: Manifest, leaks: Sequence[str], cluster: Cluster, args: argparse.Namespace
) -> None:
    """Train one model, from wherever its run stands, and write it."""
    scaling, out = config.scaling, Path(config.out)
    least = scaling.min_workers or scaling.num_workers
    cpus = cluster.cpus_per_worker(least, scaling.use_gpu, scaling.cpus_per_worker)
    task = plan_run(config, manifest, cpus, leaks=leaks)
    console = _Console(config.training.epochs)
    with RunStore.open(config, manifest.digest, new=args.new) as store, RunLog.open(task, store, console) as log:
        with _saying_what_is_kept(task, store, new=args.new):
            state = _train(task, store, log)
            with atomic_directory(out, overwrite=args.overwrite) as partial:
                with waiting("Loading TensorFlow"), silent_stderr(verbose=args.verbose):
                    import_keras_on_cpus()
                    from dermaray.training.result import write_run
                with waiting("Fitting decisions on the validation images"), silent_stderr(verbose=args.verbose):
                    write_run(partial, task, state, manifest)
                log.copy_events(partial / EVENTS)
        _say_result(config, state)
        try:
            with waiting("Recording the model"):
                log.end(state, out / "model")
        # Whatever becomes of the record, the run has ended.
        finally:
            store.remove()


def train_several(
    config: RunConfig, manifest: Manifest, leaks: Sequence[str], cluster: Cluster, args: argparse.Namespace
) -> None:
    """Train each fold or member, beside the output, but for those that are there already; then make one of them."""
    out = Path(config.out)
    manifest.rows("val")
    runs, parts = _runs(config, manifest)
    # What is begun anew are those that have ended, too.
    args = argparse.Namespace(**vars(args) | {"overwrite": args.overwrite or args.new})
    missing = [args.new or not _is_done(run, part) for run, part in zip(runs, parts, strict=True)]
    # Before hours of training, not after them.
    for run in compress(runs, missing):
        check_output(Path(run.out), overwrite=args.overwrite)
    for run, part in compress(zip(runs, parts, strict=True), missing):
        train_one(run, part, leaks, cluster, args)
    members = [open_artifact(Path(run.out).resolve()) for run in runs]
    check_measurable(members, manifest, "val", allow_leaks=args.allow_leaks)
    settings = EnsembleConfig(**{name: getattr(config, name) for name in EnsembleConfig.model_fields})
    with atomic_directory(out, overwrite=args.overwrite) as partial:
        with waiting("Making one model of them"), silent_stderr(verbose=args.verbose):
            import_keras_on_cpus()
            write_ensemble(partial / "model", members, manifest, settings, leaks=leaks, run=config)
        (partial / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    say(f"Made of {len(runs)} models, beside it as {runs[0].out} and so on")
    say_model(out / "model")


def _runs(config: RunConfig, manifest: Manifest) -> tuple[list[RunConfig], list[Manifest]]:
    """Return the configuration of each fold or member, and its images."""
    if config.folds is not None:
        parts = folds_of_training(manifest, config.folds, config.seed)
        return [_part(config, f"fold-{number}") for number in range(len(parts))], parts
    members = range(config.members or 1)
    runs = [_part(config, f"member-{number}", seed=config.seed + number) for number in members]
    return runs, [manifest for _ in members]


def _part(config: RunConfig, name: str, **changes: Any) -> RunConfig:
    """Return the configuration of one of several, which itself is neither rounded nor quantised: all of them are."""
    names = {"name": f"{config.name}-{name}", "out": f"{config.out.rstrip('/')}-{name}"}
    single = {"folds": None, "members": None, "views": 1, "weights_as": "float32", "int8": False}
    return config.model_copy(update={**names, **single, **changes})


def _is_done(run: RunConfig, part: Manifest) -> bool:
    """Tell whether an output is there, made of these very images with what touches its weights as it is."""
    file = Path(run.out) / "config.yaml"
    if not file.exists():
        return False
    try:
        made = load_config(file)
    except ConfigError:
        # Of another version.
        return False
    # Of an earlier version, which rounded them: what was rounded once is not rounded to something else.
    if settings_of(made) != settings_of(run) or made.weights_as != run.weights_as:
        return False
    return bool(open_artifact(Path(run.out)).provenance["data"]["digest"] == part.digest)


def import_keras_on_cpus() -> None:
    """Import TensorFlow for this process, which trains nothing and leaves GPUs to those that do."""
    import_keras()
    from dermaray.training.devices import hide_gpus

    hide_gpus()


class _Console:
    """Says what each epoch came to, as a log has it: a bar is gone once it has ended, and a pipe has none."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def step(self, step: int, figures: Figures) -> None:
        """Say nothing."""

    def epoch(self, epoch: int, figures: Figures) -> None:
        """Say the figures of an epoch."""
        say(f"Epoch {epoch}/{self._epochs}  {_shown(figures)}")

    def end(self, state: RunState, model: Path) -> None:
        """Say nothing."""


def _say_result(config: RunConfig, state: RunState) -> None:
    best, scaling = state.best_epoch, config.scaling
    least = f"{scaling.min_workers} to " if scaling.min_workers else ""
    say(
        f"Trained {len(state.history)} epochs on {least}{scaling.num_workers} worker(s). Best: epoch "
        f"{best['epoch']:.0f}, validation loss {best['val_loss']:.3f}, accuracy {best['val_accuracy']:.1%}"
    )
    say_model(Path(config.out) / "model")


def say_model(folder: Path) -> None:
    """Say where a model is, and what of it could not be made."""
    say(f"Model: {folder}")
    for file, reason in open_artifact(folder.resolve()).provenance.get("unconverted", {}).items():
        say(f"It has no {file}, since the network cannot be converted: {reason}")


def _train(task: WorkerTask, store: RunStore, log: RunLog) -> RunState:
    """Train from wherever the run stands, and tell about it."""
    config, batch = task.config, task.config.training.global_batch_size
    found = store.latest()
    if found is not None:
        say(f"Going on from {_position(task, found.state)}, which {store.place} keeps")
    trains = False
    with tracked(f"Training {config.name}", task.train_plan.steps * batch) as tracker:

        def receive(told: dict[str, Any]) -> None:
            nonlocal trains
            trains = True
            tracker.update(told["steps"] * batch, _note(told, config.training.epochs))
            log.tell(told)

        def stop() -> bool:
            if trains:
                notify.ask_to_stop()
                # Who reads what is said may have been interrupted, too.
                with suppress(BrokenPipeError):
                    say("Stopping once the state is kept, in some seconds; another Ctrl-C stops at once")
            return trains

        with relay(receive) as notify:
            state = train(task, store, notify, stop=stop)
        log.complete(state)
    return state


@contextmanager
def _saying_what_is_kept(task: WorkerTask, store: RunStore, *, new: bool) -> Iterator[None]:
    """Tell whoever interrupts a run where the same command will go on, but for `--new` where that was given."""
    try:
        yield
    except KeyboardInterrupt:
        if found := store.latest():
            with suppress(BrokenPipeError):
                say(f"Kept: {_position(task, found.state)}. {how_to_go_on(new=new)}")
        raise


def _position(task: WorkerTask, state: RunState) -> str:
    epochs, steps = divmod(state.step, task.steps_per_epoch)
    within = f" and step {steps} of {task.steps_per_epoch}" if steps else ""
    return f"epoch {epochs} of {task.config.training.epochs}{within}"


def _note(told: dict[str, Any], epochs: int) -> str:
    return f"epoch {min(told['epochs'] + 1, epochs)}/{epochs}  {_shown(told)}"


def _shown(figures: Figures) -> str:
    return "  ".join(f"{name} {figures[name]:.3f}" for name in FIGURES if name in figures)
