"""MLflow is asked for, not needed: what is wrong with it is told before a run starts, and costs a run nothing later."""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest

from dermaray.config import RunConfig, make_config
from dermaray.errors import ConfigError, OutputError
from dermaray.training.state import RunState
from dermaray.training.tracking import MlflowRun, tracked_run

Task = Callable[..., Any]
HISTORY = [{"epoch": epoch, "val_loss": 1 / epoch} for epoch in (1, 2, 3)]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    def make(address: str = f"sqlite:///{tmp_path / 'mlflow.db'}", experiment: str = "dermaray") -> Any:
        config = RunConfig.model_validate(
            {
                "name": "tiny",
                "out": str(tmp_path / "runs" / "tiny"),
                "data": {"manifest": "data"},
                "training": {"class_weights": {"Bowen's disease": 2.0}},
                "tracking": {"mlflow": address, "experiment": experiment},
            }
        )
        return SimpleNamespace(config=config, provenance={"data": {"digest": "0"}})

    return make


def known(task: Any) -> list[tuple[str, list[int]]]:
    """Return status and epochs of every run in a task's experiment, the latest first."""
    client = mlflow.MlflowClient(task.config.tracking.mlflow)
    experiment = client.get_experiment_by_name(task.config.tracking.experiment)
    runs = client.search_runs([experiment.experiment_id])
    return [
        (run.info.status, [metric.step for metric in client.get_metric_history(run.info.run_id, "val_loss")])
        for run in runs
    ]


def interrupt(task: Any, folder: Path) -> None:
    """Begin a run and interrupt it after its first epoch."""
    with suppress(KeyboardInterrupt), tracked_run(task, folder, None) as run:
        run.epoch(1, {"val_loss": 1.0})
        raise KeyboardInterrupt


def test_a_run_goes_on_in_mlflows_run_and_makes_up_for_what_that_lacks(task: Task, tmp_path: Path) -> None:
    interrupt(task(), tmp_path)
    assert known(task()) == [("KILLED", [1])]
    with tracked_run(task(), tmp_path, RunState(history=HISTORY[:2])) as run:
        run.epoch(3, {"val_loss": 0.3})
    assert known(task()) == [("FINISHED", [1, 2, 3])]


def test_a_run_that_had_no_whole_epoch_goes_on_in_mlflows_run(task: Task, tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), tracked_run(task(), tmp_path, None):
        raise KeyboardInterrupt
    with tracked_run(task(), tmp_path, RunState(step=4)) as run:
        run.epoch(1, {"val_loss": 1.0})
    assert known(task()) == [("FINISHED", [1])]


def test_a_run_that_is_begun_anew_has_a_run_of_its_own(task: Task, tmp_path: Path) -> None:
    interrupt(task(), tmp_path)
    with tracked_run(task(), tmp_path, None) as run:
        run.epoch(1, {"val_loss": 0.5})
    assert known(task()) == [("FINISHED", [1]), ("KILLED", [1])]


def test_a_run_goes_on_where_its_experiment_changed(task: Task, tmp_path: Path) -> None:
    interrupt(task(), tmp_path)
    with tracked_run(task(experiment="other"), tmp_path, RunState(history=HISTORY)):
        pass
    assert known(task(experiment="other")) == [("FINISHED", [1, 2, 3])]


def test_a_server_that_does_not_answer_is_one_error(task: Task, tmp_path: Path) -> None:
    address = "http://127.0.0.1:1"
    with (
        pytest.raises(OutputError, match=f"MLflow at {address} cannot be used: API request"),
        tracked_run(task(address), tmp_path, None),
    ):
        pass


def test_the_extra_that_is_missing_is_named(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install 'dermaray\[tracking\]'"), tracked_run(task(), tmp_path, None):
        pass


def test_a_password_is_not_written_into_models(task: Task) -> None:
    with pytest.raises(ConfigError, match="must be without a password") as caught:
        make_config(task().config.model_dump() | {"tracking": {"mlflow": "postgresql://me:secret@host/mlflow"}}, "x")
    assert "secret" not in str(caught.value)


def test_a_server_that_is_lost_is_asked_once_more_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    class Lost:
        def log_metrics(self, figures: Any, step: int, run_id: str) -> None:
            asked.append(step)
            raise OSError("the server is gone\nand more")

    run = MlflowRun(Lost(), "1", 0)
    with caplog.at_level(logging.WARNING):
        for row in HISTORY:
            run.epoch(int(row["epoch"]), {"val_loss": row["val_loss"]})
        run.end(RunState(history=HISTORY), tmp_path)
    assert asked == [1, 1]
    assert [r.message for r in caplog.records] == ["MLflow does not know all of this run: the server is gone"] * 2
