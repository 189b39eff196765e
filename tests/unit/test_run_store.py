"""What a run keeps of itself: it comes back whole or not at all, and only to the run that it belongs to."""

import errno
import fcntl
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermaray.config import RunConfig, TrainingConfig
from dermaray.errors import OutputError, TrainingError
from dermaray.training.state import RunState
from dermaray.training.store import STATE_FILE, RunStore
from dermaray.training.unfinished import TRIALS, empty, unfinished

HISTORY = [
    {"epoch": 1, "val_loss": 0.9},
    {"epoch": 2, "val_loss": 0.7},
    {"epoch": 3, "val_loss": 0.8},
    {"epoch": 4, "val_loss": 0.7},
]


def config_of(tmp_path: Path, **changes: Any) -> RunConfig:
    values = {"name": "a", "out": str(tmp_path / "out"), "data": {"manifest": "data"}} | changes
    return RunConfig.model_validate(values)


def state_of(step: int) -> RunState:
    rng = np.random.default_rng(step)
    arrays = [rng.normal(size=(3, 4)).astype(np.float32), np.array(step, np.int64)]
    return RunState(step, HISTORY[:2], arrays[:1], arrays, [*arrays, *arrays] * 6, [])


def bytes_of(state: RunState) -> bytes:
    file = io.BytesIO()
    state.write(file)
    return file.getvalue()


def keep(store: RunStore, attempt: str, name: str, data: bytes) -> None:
    folder = Path(store.place) / attempt / f"checkpoint_{name}"
    folder.mkdir(parents=True)
    (folder / STATE_FILE).write_bytes(data)


def test_a_state_comes_back_as_it_was() -> None:
    state = state_of(7)
    read = RunState.read(io.BytesIO(bytes_of(state)))
    assert (read.step, read.history) == (7, HISTORY[:2])
    for part in ("best", "model", "optimizer", "metrics"):
        for a, b in zip(getattr(state, part), getattr(read, part), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def test_a_state_that_was_cut_or_changed_is_noticed() -> None:
    data = bytes_of(state_of(7))
    for length in range(0, len(data), len(data) // 50):
        with pytest.raises(TrainingError, match="damaged"):
            RunState.read(io.BytesIO(data[:length]))
    # One byte in the midst of an array.
    at = data.index(state_of(7).best[0].tobytes()) + 5
    with pytest.raises(TrainingError, match="damaged"):
        RunState.read(io.BytesIO(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]))


def test_the_last_checkpoint_that_is_whole_is_found(tmp_path: Path) -> None:
    with RunStore.open(config_of(tmp_path), "d", new=False) as store:
        assert store.latest() is None
        assert store.attempt() == "attempt-0001"
        keep(store, "attempt-0001", "2026-01-01", bytes_of(state_of(1)))
        keep(store, "attempt-0002", "2026-01-02", bytes_of(state_of(2)))
        keep(store, "attempt-0002", "2026-01-03", bytes_of(state_of(3))[:-100])
        (Path(store.place) / "attempt-0003" / "checkpoint_2026-01-04").mkdir(parents=True)
        found = store.latest()
        assert found is not None
        assert found.state.step == 2
        assert store.attempt() == "attempt-0004"
        store.remove()
    assert not store.folder.exists()


def test_a_run_goes_on_with_its_own_settings_alone(tmp_path: Path) -> None:
    with RunStore.open(config_of(tmp_path), "d", new=False) as store:
        keep(store, "attempt-0001", "1", bytes_of(state_of(1)))
    scaled = {"scaling": {"num_workers": 2}, "ingest": {"cache": "none"}, "checkpoint": {"every_steps": 5}}
    with RunStore.open(config_of(tmp_path, **scaled), "d", new=False) as store:
        assert store.latest() is not None
    for changes, data, message in (
        ({"training": {"learning_rate": 0.5}}, "d", r"training.learning_rate=0.001 in place of 0.5\. .*--new"),
        ({"training": {"epochs": 5}, "seed": 3}, "d", "and 1 other settings"),
        ({}, "e", "other data"),
    ):
        with (
            pytest.raises(OutputError, match=message),
            RunStore.open(config_of(tmp_path, **changes), data, new=False),
        ):
            pass
    with RunStore.open(config_of(tmp_path, seed=3), "d", new=True) as store:
        assert store.latest() is None


def test_runs_of_one_name_share_a_storage_and_not_a_place(tmp_path: Path) -> None:
    storage = {"checkpoint": {"storage": str(tmp_path / "shared")}}
    first, second = (config_of(tmp_path, out=str(tmp_path / name), **storage) for name in ("fold0", "fold1"))
    with RunStore.open(first, "d", new=False) as store, RunStore.open(second, "d", new=False) as other:
        keep(store, "attempt-0001", "1", bytes_of(state_of(1)))
        assert other.latest() is None
        other.remove()
        assert store.latest() is not None


def test_one_process_at_a_time(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with (
        RunStore.open(config, "d", new=False),
        pytest.raises(OutputError, match="another process is at work"),
        RunStore.open(config, "d", new=False),
    ):
        pass


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("/proc/nowhere", r"the run cannot be kept: /proc/nowhere/.a-\w{8}.unfinished"),
        ("nonsense://a/b", "unknown kind of store"),
        ("s3://", "names no bucket"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_error(storage: str, message: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, checkpoint={"storage": storage})
    with pytest.raises(OutputError, match=message), RunStore.open(config, "d", new=False):
        pass


def test_an_error_in_the_run_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), RunStore.open(config_of(tmp_path), "d", new=False):
        raise PermissionError


@pytest.mark.parametrize(
    ("patience", "head_epochs", "small_epochs", "epochs", "stale"),
    [
        (None, 0, 0, 4, False),
        (1, 0, 0, 2, False),
        (1, 0, 0, 3, True),
        (2, 0, 0, 3, False),
        (2, 0, 0, 4, True),
        (2, 3, 0, 4, False),
        (2, 0, 3, 4, False),
    ],
)
def test_a_run_is_stale_by_its_history(
    patience: int | None, head_epochs: int, small_epochs: int, epochs: int, stale: bool
) -> None:
    training = TrainingConfig(epochs=10, early_stopping=patience, head_epochs=head_epochs, small_epochs=small_epochs)
    state = replace(RunState(), history=HISTORY[:epochs])
    assert state.is_stale(training) is stale
    assert not RunState().is_stale(training)


def test_of_equal_epochs_the_first_is_best() -> None:
    assert RunState(history=HISTORY).best_epoch["epoch"] == 2


def test_the_hidden_folder_goes_when_nothing_is_kept_in_it_and_stays_otherwise(tmp_path: Path) -> None:
    hidden = tmp_path / ".out.unfinished"
    with unfinished(tmp_path / "out") as folder:
        assert folder == hidden
        (folder / "tune").mkdir()
        (folder / "begun.txt").touch()
    assert sorted(path.name for path in hidden.iterdir()) == ["begun.txt", "lock", "tune"]
    with unfinished(tmp_path / "out") as folder:
        empty(folder)
        # The lock is held to the end.
        with pytest.raises(OutputError, match="another process is at work"), unfinished(tmp_path / "out"):
            pass
    assert not hidden.exists()


def test_a_file_system_without_locks_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputError, match=r"cannot be locked: No locks available"), unfinished(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_that_lie_elsewhere_are_neither_left_out_nor_removed(tmp_path: Path) -> None:
    with RunStore.open(config_of(tmp_path), "d", new=False) as store:
        keep(store, "attempt-0001", "2026-01-01", bytes_of(state_of(1)))
    elsewhere = config_of(tmp_path, checkpoint={"storage": str(tmp_path / "storage")})
    with pytest.raises(
        OutputError, match=r"checkpoints, which were kept without checkpoint\.storage\. Go on with that"
    ):
        RunStore.open(elsewhere, "d", new=False).__enter__()
    with RunStore.open(config_of(tmp_path), "d", new=False) as store:
        assert store.latest() is not None
    with RunStore.open(elsewhere, "d", new=True) as store:
        assert store.latest() is None
        keep(store, "attempt-0001", "2026-01-01", bytes_of(state_of(2)))
    # What began anew can be gone on with.
    with RunStore.open(elsewhere, "d", new=False) as store:
        assert store.latest() is not None


def test_a_search_of_the_same_output_is_left_alone(tmp_path: Path) -> None:
    with unfinished(tmp_path / "out") as folder:
        (folder / TRIALS).mkdir()
    with pytest.raises(OutputError, match="keeps a search that has not ended"):
        RunStore.open(config_of(tmp_path), "d", new=False).__enter__()
    assert (folder / TRIALS).exists()
    with RunStore.open(config_of(tmp_path), "d", new=True):
        assert not (folder / TRIALS).exists()
