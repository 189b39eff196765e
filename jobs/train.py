"""python -m jobs.train --config configs/case-study-balanced.yaml [key.path=value ...]

A manifest and a configuration to a model: `model/` (the artifact), `config.yaml` (resolved), `history.csv` (per epoch),
`tensorboard/`. While it runs its state is kept beside OUT; the same command goes on with a run that was killed.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.options import add_run

if TYPE_CHECKING:
    from dermaray.config import RunConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the job's arguments."""
    add_run(parser, "those in configs/", "training.epochs=3 scaling.num_workers=2")


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit code."""
    from cluster.runtime import check_lasting
    from dermaray.config import load_config
    from dermaray.data.gate import check_gate
    from dermaray.data.manifest import Manifest
    from dermaray.files import check_output
    from dermaray.training.start import check_start
    from jobs.session import ray_session

    config = load_config(args.config, args.overrides)
    out = Path(config.out)
    for path in _written(config):
        check_lasting(path)
    check_output(out, overwrite=args.overwrite)
    manifest = Manifest.read(Path(config.data.manifest)).for_fold(config.data.fold)
    allow = args.allow_leaks
    leaks = [*check_gate(manifest, allow=allow), *check_start(config, manifest, allow=allow)]
    with ray_session(args) as cluster:
        from jobs.training import train_one, train_several

        train_run = train_one if config.folds is None and config.members is None else train_several
        train_run(config, manifest, leaks, cluster, args)
    return 0


def _written(config: "RunConfig") -> Iterator[Path]:
    """Yield the local paths that a run writes to."""
    for place in (config.out, config.checkpoint.storage, config.tracking.mlflow):
        path = (place or "").removeprefix("sqlite:///")
        if path and "://" not in path:
            yield Path(path)


if __name__ == "__main__":
    from jobs.cli import run_job

    sys.exit(run_job("train"))
