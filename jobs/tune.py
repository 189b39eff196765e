"""python -m jobs.tune --config configs/tune.yaml [key.path=value ...]

A search for better values of a training configuration's keys: `best.yaml`, which `train` takes, `trials.csv` and
`trials.png`. While it runs it is kept beside OUT; the same command goes on with a search that was killed.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.options import add_run

if TYPE_CHECKING:
    from dermaray.training.search import Search
    from dermaray.training.trials import Trial
    from dermaray.training.tuning import PlanRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    add_run(parser, "configs/tune.yaml", "trials=30")


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.data.gate import check_gate
    from dermaray.data.manifest import Manifest
    from dermaray.files import atomic_directory, check_output
    from dermaray.training.search import load_search
    from dermaray.training.start import check_start
    from dermaray.training.unfinished import empty, unfinished
    from jobs.console import say
    from jobs.session import ray_session

    search = load_search(args.config, args.overrides)
    config, base = search.config, search.base
    out = Path(config.out)
    check_lasting(out)
    check_output(out, overwrite=args.overwrite)
    manifest = Manifest.read(Path(base.data.manifest)).for_fold(base.data.fold)
    allow = args.allow_leaks
    leaks = check_gate(manifest, allow=allow)
    for run in search.starts():
        leaks += check_start(run, manifest, allow=allow)
    with ray_session(args) as cluster, unfinished(out) as folder:
        from dermaray.training.task import plan_run
        from dermaray.training.trials import write_search
        from dermaray.training.tuning import begin_search

        scaling = base.scaling
        cpus = cluster.cpus_per_worker(
            scaling.num_workers, scaling.use_gpu, scaling.cpus_per_worker, concurrent=config.concurrent
        )
        if outside := search.outside():
            say(f"No trial has the configuration's own values: {', '.join(outside)} out of range, or not named in it")
        begin_search(search, manifest.digest, folder, new=args.new)
        trials = _run(
            search,
            folder,
            lambda run: plan_run(run, manifest, cpus, leaks=leaks, concurrent=config.concurrent),
            new=args.new,
        )
        with atomic_directory(out, overwrite=args.overwrite) as partial:
            best = write_search(partial, search, trials)
        empty(folder)
    if failed := [trial.problem for trial in trials if trial.problem]:
        say(f"{len(failed)} of {len(trials)} trials failed, the first of them: {failed[0]}")
    say(
        f"{len(trials)} trials. Best: validation loss {best.best['val_loss']:.3f}, accuracy "
        f"{best.best['val_accuracy']:.1%}, with {', '.join(f'{key}={value}' for key, value in best.values.items())}"
    )
    full = search.full_epochs
    longer = "" if full == base.training.epochs else f" training.epochs={full}"
    say(f"To train it: dermaray train --config {out / 'best.yaml'}{longer}")
    return 0


def _run(search: "Search", folder: Path, plan: "PlanRun", *, new: bool) -> "list[Trial]":
    """Run the trials that are left, and tell about it."""
    from cluster.relay import relay
    from dermaray.training.tuning import begun_trials, run_trials
    from jobs.console import how_to_go_on, say, tracked

    trials, epochs = search.config.trials, search.base.training.epochs
    if begun := begun_trials(folder):
        say(f"Going on with a search of which {len(begun)} of {trials} trials have begun")
    with tracked(f"Searching {search.config.name}", trials, unit="trials") as tracker:

        def receive(told: dict[str, Any]) -> None:
            begun = begun_trials(folder)
            number, epoch = begun.index(told["trial"]) + 1, min(told["epochs"] + 1, epochs)
            figures = f"  val_loss {told['val_loss']:.3f}" if "val_loss" in told else ""
            tracker.update(len(begun) - 1, f"trial {number}/{trials}  epoch {epoch}/{epochs}{figures}")

        try:
            with relay(receive) as notify:
                return run_trials(search, folder, plan, notify)
        except KeyboardInterrupt:
            say(f"Kept: {len(begun_trials(folder))} of {trials} trials have begun. {how_to_go_on(new=new)}")
            raise


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("tune"))
