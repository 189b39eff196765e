"""python -m jobs.tune --config configs/tune.yaml [key.path=value ...]

A search for better values of a training configuration's keys: `best.yaml`, which `train` takes, `trials.csv` and
`trials.png`. While it runs it is kept beside OUT; the same command goes on with a search that was killed.
"""

import argparse
import shutil
import sys
from pathlib import Path

from jobs.options import add_run


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
    from dermaray.training.unfinished import unfinished
    from jobs.console import say
    from jobs.session import ray_session

    search = load_search(args.config, args.overrides)
    config, base = search.config, search.base
    out = Path(config.out)
    check_lasting(out)
    check_output(out, overwrite=args.overwrite)
    manifest = Manifest.read(Path(base.data.manifest)).for_fold(base.data.fold)
    leaks = check_gate(manifest, allow=args.allow_leaks)
    with ray_session(args) as cluster, unfinished(out) as folder:
        from dermaray.training.task import plan_run
        from dermaray.training.trials import write_search
        from dermaray.training.tuning import begin_search, run_trials

        scaling = base.scaling
        cpus = cluster.cpus_per_worker(
            scaling.num_workers * config.concurrent, scaling.use_gpu, scaling.cpus_per_worker
        )
        begin_search(search, manifest.digest, folder, new=args.new)
        trials = run_trials(search, folder, lambda run: plan_run(run, manifest, cpus, leaks=leaks))
        with atomic_directory(out, overwrite=args.overwrite) as partial:
            best = write_search(partial, search, trials)
        shutil.rmtree(folder)
    say(
        f"{len(trials)} trials. Best: validation loss {best.best['val_loss']:.3f}, accuracy "
        f"{best.best['val_accuracy']:.1%}, with {', '.join(f'{key}={value}' for key, value in best.values.items())}"
    )
    say(f"To train it: dermaray train --config {out / 'best.yaml'}")
    return 0


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("tune"))
