"""Training: many workers end where one does, and what is written is complete."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dermaray.models.artifact import open_artifact

RunJob = Callable[..., int]

# Relative to the largest weight of each tensor: the workers sum their gradients in another order than one does.
TOLERANCE = 1e-4


def weights_of(run: Path) -> list[np.ndarray]:
    return [np.asarray(w) for w in open_artifact(run).load_model().get_weights()]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_two_workers_end_with_the_weights_of_one(optimizer: str, config: Path, run_job: RunJob) -> None:
    runs = {n: config.parent / f"{optimizer}-{n}" for n in (1, 2)}
    for workers, out in runs.items():
        run_job(
            "train",
            "--config",
            config,
            f"out={out}",
            f"scaling.num_workers={workers}",
            f"training.optimizer={optimizer}",
        )
    one, two = weights_of(runs[1]), weights_of(runs[2])
    for a, b in zip(one, two, strict=True):
        assert np.abs(a - b).max() <= TOLERANCE * max(np.abs(a).max(), 1e-3), (
            a.shape,
            np.abs(a - b).max(),
            np.abs(a).max(),
        )
