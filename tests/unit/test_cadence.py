"""When a run keeps checkpoints: after steps, after seconds, and when it is asked to stop."""

from collections.abc import Callable

import pytest

from dermaray.config import CheckpointConfig
from dermaray.training import callbacks
from dermaray.training.callbacks import Cadence

Due = Callable[[Cadence, range], list[int]]


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> Due:
    """Return what takes steps of half a second each, and returns after which of them a checkpoint was due."""
    clock = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(callbacks, "broadcast_from_rank_zero", lambda told: told)

    def take(cadence: Cadence, steps: range) -> list[int]:
        found = []
        for step in steps:
            clock[0] += 0.5
            if cadence.is_due(step):
                found.append(step)
                cadence.saved(step)
        return found

    return take


def cadence(asked: Callable[[], bool] = lambda: False, **config: float | None) -> Cadence:
    settings = CheckpointConfig.model_validate({"every_seconds": None, **config})
    return Cadence(settings, 0, asked)


def test_after_so_many_steps(due: Due) -> None:
    assert due(cadence(every_steps=7), range(1, 31)) == [7, 14, 21, 28]


def test_after_so_many_seconds(due: Due) -> None:
    assert due(cadence(every_seconds=5), range(1, 46)) == [10, 20, 30, 40]


def test_whoever_wants_a_run_to_stop_waits_for_two_seconds_at_most(due: Due) -> None:
    asked: list[bool] = []
    asking = cadence(lambda: bool(asked))
    assert due(asking, range(1, 12)) == []
    asked.append(True)
    assert due(asking, range(12, 30))[0] <= 15
    assert asking.stopping


def test_at_the_end_of_an_epoch_all_workers_learn_of_it(due: Due) -> None:
    asking = cadence(lambda: True)
    asking.listen()
    assert asking.stopping
