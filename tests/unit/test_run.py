"""When a run has ended, and what becomes of what workers fail with."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train

from dermaray.config import TrainingConfig
from dermaray.errors import StoreError, TrainingError
from dermaray.training.run import _explained, _has_ended, _tells_of_a_loss, _WorkersLost
from dermaray.training.state import RunState


class UnavailableError(Exception):
    """Is called as TensorFlow's error is."""


class UnknownError(Exception):
    """Is called as TensorFlow's error is."""


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (UnavailableError("Socket closed"), True),
        (UnknownError("Could not start gRPC server"), True),
        (UnknownError("something else"), False),
        (ray.exceptions.WorkerCrashedError(), True),
        (ValueError("a mistake"), False),
    ],
)
def test_what_is_worth_another_attempt(failure: Exception, again: bool) -> None:
    assert _tells_of_a_loss(failure) is again


@pytest.mark.parametrize(
    ("failures", "kind", "message"),
    [
        # Whatever the other workers say of that.
        ({0: UnavailableError("gone"), 1: TrainingError("training diverged")}, TrainingError, "training diverged"),
        ({0: ValueError("x"), 1: UnavailableError("gone")}, _WorkersLost, "2 training workers failed: x. -v shows"),
        ({0: ValueError("x")}, TrainingError, "1 training workers failed: x. -v shows"),
        ({}, _WorkersLost, "0 training workers failed"),
        ({0: StoreError("s3://a: the object store cannot be reached")}, _WorkersLost, "cannot be reached"),
    ],
)
def test_a_mistake_that_a_worker_noticed_is_told(
    failures: dict[int, Exception], kind: type[Exception], message: str
) -> None:
    explained = _explained(ray.train.WorkerGroupError("of workers", failures))
    assert type(explained) is kind
    assert message in str(explained)


def test_a_run_has_ended_with_its_last_step_or_early() -> None:
    training = TrainingConfig(epochs=9, early_stopping=2)
    task: Any = SimpleNamespace(train_plan=SimpleNamespace(steps=90), config=SimpleNamespace(training=training))
    epochs = [{"epoch": epoch, "val_loss": loss} for epoch, loss in ((1, 0.7), (2, 0.8), (3, 0.9))]
    assert not _has_ended(task, RunState(step=20, history=epochs[:2]))
    assert _has_ended(task, RunState(step=30, history=epochs))
    assert _has_ended(task, RunState(step=90))
