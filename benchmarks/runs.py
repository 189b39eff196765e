"""Training runs from begin to end, and how far apart two of them end."""

from pathlib import Path

import numpy as np

from dermaray.config import RunConfig
from dermaray.data.manifest import Manifest
from dermaray.training.run import train
from dermaray.training.state import Arrays, RunState
from dermaray.training.store import RunStore
from dermaray.training.task import plan_run


def trained(config: RunConfig, cpus_per_worker: float) -> RunState:
    """Train on the connected Ray, and keep nothing but the state at the end."""
    manifest = Manifest.read(Path(config.data.manifest))
    task = plan_run(config, manifest, cpus_per_worker)
    with RunStore.open(config, manifest.digest, new=True) as store:
        state = train(task, store)
        store.remove()
    return state


def difference(one: Arrays, other: Arrays) -> float:
    """Return the largest difference of two lists of tensors, in units of each tensor's largest value in the first."""
    pairs = [
        (a.astype(np.float64), b.astype(np.float64)) for a, b in zip(one, other, strict=True) if np.abs(a).max() > 0
    ]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def step_kept(unfinished: Path) -> int:
    """Return the last step of which an unfinished run has a checkpoint, 0 where it has none."""
    kept = (unfinished / "checkpoints").glob("attempt-*/step-*")
    return max((int(folder.name.removeprefix("step-")) for folder in kept), default=0)
