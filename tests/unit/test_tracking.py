"""MLflow is asked for, not needed: what is wrong with it is told before a run starts, and costs a run nothing later."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dermaray.config import TrackingConfig
from dermaray.errors import ConfigError, OutputError
from dermaray.training.state import RunState
from dermaray.training.tracking import MlflowRun, tracked_run


def task(address: str) -> Any:
    return SimpleNamespace(config=SimpleNamespace(tracking=TrackingConfig(mlflow=address)))


def test_a_server_that_does_not_answer_is_one_error(tmp_path: Path) -> None:
    address = "http://127.0.0.1:1"
    with (
        pytest.raises(OutputError, match=f"MLflow at {address} cannot be used: API request"),
        tracked_run(task(address), tmp_path, resumed=False),
    ):
        pass


def test_the_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'dermaray\[tracking\]'"),
        tracked_run(task("sqlite://"), tmp_path, resumed=False),
    ):
        pass


def test_a_server_that_is_lost_costs_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Lost:
        def __getattr__(self, name: str) -> Any:
            raise OSError("the server is gone\nand more")

    run = MlflowRun(Lost(), "1")
    with caplog.at_level(logging.WARNING):
        run.epoch(1, {"val_loss": 1.0})
        run.end(RunState(history=[{"epoch": 1, "val_loss": 1.0}]), tmp_path)
        run.close("FINISHED")
    assert "MLflow does not know all of this run: the server is gone" in {r.message for r in caplog.records}
