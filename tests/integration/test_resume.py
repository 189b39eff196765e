"""Training is hard to kill: workers, the driver and a storage may fail, and the run ends with the same weights."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import mlflow
import numpy as np
import pandas as pd
import pytest
import ray.cluster_utils

from benchmarks.processes import below
from cluster.relay import relay
from dermaray.config import load_config
from dermaray.data.manifest import Manifest
from dermaray.errors import OutputError
from dermaray.models.artifact import open_artifact
from dermaray.models.predictor import Predictor
from dermaray.models.pyfunc import COLUMNS
from dermaray.training.run import train
from dermaray.training.state import RunState
from dermaray.training.store import RunStore
from dermaray.training.task import WorkerTask, plan_run
from tests.commands import wait_until
from tests.object_store import Bucket, new_bucket

RunJob = Callable[..., int]

ALL_THAT_HAS_A_STATE = (
    "training.epochs=2",
    "training.head_epochs=1",
    "training.optimizer=adamw",
    "training.schedule=cosine",
    "training.warmup_steps=3",
    "training.clip_norm=0.5",
    "training.ema=0.8",
    "checkpoint.every_steps=2",
)


def task_of(config: Path, *overrides: str) -> WorkerTask:
    resolved = load_config(config, overrides)
    return plan_run(resolved, Manifest.read(Path(resolved.data.manifest)), 1.0)


def trained(task: WorkerTask, notify: Any = None) -> RunState:
    with RunStore.open(task.config, "digest", new=False) as store:
        state = train(task, store, notify)
        store.remove()
    return state


def workers() -> list[int]:
    """Return the processes that train now on the shared Ray."""
    return [process for process, command in below(os.getpid()).items() if b"RayTrainWorker" in command]


def assert_equal(a: RunState, b: RunState) -> None:
    assert a.step == b.step
    for part in ("model", "best", "optimizer"):
        for x, y in zip(getattr(a, part), getattr(b, part), strict=True):
            np.testing.assert_array_equal(x, y, part)
    for one, other in zip(a.history, b.history, strict=True):
        for name in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy"):
            assert other[name] == pytest.approx(one[name], rel=1e-4), name


@pytest.fixture(scope="module")
def undisturbed(config: Path, ray_cluster: object) -> RunState:
    return trained(task_of(config, f"out={config.parent / 'undisturbed'}", *ALL_THAT_HAS_A_STATE))


def test_two_workers_of_which_one_is_killed_end_as_one_does(
    undisturbed: RunState, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A store that fsspec opens, and Ray by itself does not: one below the folder that this process is in.
    fsspec.register_implementation("kept", "fsspec.implementations.local.LocalFileSystem")
    monkeypatch.chdir(tmp_path)
    places = f"out={config.parent / 'killed'}", "checkpoint.storage=kept://bucket"
    task = task_of(config, *places, *ALL_THAT_HAS_A_STATE, "scaling.num_workers=2")
    killed: list[int] = []
    steps_after: list[int] = []

    def kill(told: dict[str, Any]) -> None:
        if killed:
            steps_after.append(told["steps"])
        # In the midst of the second epoch.
        elif told["steps"] > task.steps_per_epoch * 1.5:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    with relay(kill) as notify:
        state = trained(task, notify)
    # It was taken up before its end, and went on.
    assert killed
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bucket", "kept:"]
    assert min(steps_after) < task.steps_per_epoch * 2
    assert_equal(undisturbed, state)


@pytest.fixture
def another_ray() -> Iterator[None]:
    """Another Ray on this machine: its parts find each other by what they were told, and not by looking around."""
    cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield
    cluster.shutdown()


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with new_bucket("runs") as made:
        yield made


def test_a_driver_that_is_killed_goes_on_by_the_same_command_from_an_object_store(
    undisturbed: RunState,
    config: Path,
    run_job: RunJob,
    another_ray: None,
    bucket: Bucket,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = config.parent / "driver"
    database = f"sqlite:///{config.parent / 'mlflow.db'}"
    places = [f"out={out}", f"tracking.mlflow={database}", f"checkpoint.storage={bucket.uri('mine')}"]
    words = ["--config", str(config), *places, *ALL_THAT_HAS_A_STATE]
    process = subprocess.Popen([sys.executable, "-m", "jobs.train", *words], start_new_session=True)
    try:
        wait_until(lambda: any(key.endswith("state.npz") for key in bucket.files()), process)
    finally:
        process.kill()
        process.wait()
    assert not out.exists()
    run_job("train", *words)
    said = capsys.readouterr().out
    assert "Going on from epoch" in said
    assert re.search(r"Epoch (\d+)/\1  loss \d\.\d+  val_loss \d\.\d+  val_accuracy 0\.\d+\n", said)
    assert_weights(out, undisturbed)
    assert sorted(path.name for path in out.iterdir()) == [
        ".dermaray",
        "config.yaml",
        "history.csv",
        "model",
        "tensorboard",
    ]
    assert not (config.parent / ".driver.unfinished").exists()
    assert bucket.files() == []
    assert_tracked(database, out)


def trains(out: Path) -> bool:
    events = out.parent / f".{out.name}.unfinished" / "tensorboard"
    return any(b"step/loss" in file.read_bytes() for file in events.glob("*"))


def test_who_is_interrupted_keeps_a_checkpoint_and_says_how_to_go_on(
    config: Path, ray_cluster: object, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # Its one epoch takes minutes, and nothing of it would be kept before its end.
    endless = ["--config", str(config), f"out={out}", "scaling.num_workers=2", "data.balance={n_per_class: 20000}"]
    command = [sys.executable, "-m", "jobs.train", *endless]
    # What a shell runs in the background, these tests perhaps, ignores SIGINT, and so would what it starts.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    signal.signal(signal.SIGINT, ignored)
    try:
        wait_until(lambda: trains(out), process)
        # As a terminal does: to all that the command has started and that has not left its group.
        os.killpg(process.pid, signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert re.search(r"Kept: epoch 0 of 1 and step \d+ of 15000\. The same command goes on; --new begins anew", said)
    assert complained.strip().splitlines()[-1] == "dermaray train: interrupted"
    assert not out.exists()


def assert_tracked(database: str, out: Path) -> None:
    """Both processes have told MLflow of one run, and its model answers as the one in the folder does."""
    client = mlflow.MlflowClient(database)
    (run,) = client.search_runs([client.get_experiment_by_name("dermaray").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.optimizer"] == "adamw"
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [metric.step for metric in history] == [1, 2]
    predictor = Predictor(open_artifact(out))
    image = Path(Manifest.read(Path(run.data.params["data.manifest"])).table["uri"][0].as_py()).read_bytes()
    mlflow.set_tracking_uri(database)
    table = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(pd.DataFrame({"image": [image] * 2}))
    prediction = predictor.predict(image)
    assert list(table["label"]) == [prediction.label] * 2
    assert table.iloc[1][list(prediction.probabilities)].to_dict() == pytest.approx(prediction.probabilities, abs=1e-6)
    for name in COLUMNS:
        expected = getattr(prediction, name)
        # What the network sees together decides its last digits.
        assert table[name][1] == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected), name


def assert_weights(out: Path, state: RunState) -> None:
    for a, b in zip(open_artifact(out).load_model().get_weights(), state.best, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_storage_that_fails_is_one_error(config: Path, ray_cluster: object, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    task = task_of(config, f"out={tmp_path / 'out'}", f"checkpoint.storage={storage}", "checkpoint.every_steps=4")

    def break_storage(_: dict[str, Any]) -> None:
        for attempt in storage.glob(".tiny-*.unfinished/attempt-0001/"):
            shutil.rmtree(attempt)
            attempt.touch()

    with relay(break_storage) as notify, pytest.raises(OutputError, match="a checkpoint could not be written to"):
        trained(task, notify)
