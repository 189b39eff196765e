"""The event files of a run: all that was told, and once each, however often the run was taken up again."""

import logging
from pathlib import Path

import pytest

from dermaray.training.runlog import RunLog, TensorBoard
from tests.event_files import shown

EPOCH = 3


def write(folder: Path, start: int, *steps: int) -> None:
    """Tell of some steps, and of the epochs that end with them."""
    board = TensorBoard(folder, start, EPOCH)
    for step in steps:
        board.step(step, {"loss": float(step)})
        if step % EPOCH == 0:
            board.epoch(step // EPOCH, {"val_loss": float(step)})
    board.close()


def test_what_is_done_again_is_shown_once(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 3, 4, 5, 6)
    # Of two files that were begun in the same second the names tell no order, or are the same.
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "earlier.tfevents")
    # The second epoch was told and not kept.
    write(tmp_path, 4, 5, 6, 7, 8)
    assert shown(tmp_path, "step/loss") == [(step, float(step)) for step in range(1, 9)]
    assert shown(tmp_path, "epoch/val_loss") == [(3, 3.0), (6, 6.0)]


def test_steps_that_a_new_worker_takes_again_are_shown_once(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 4, 5, 1, 2, 4, 5, 7)
    assert [step for step, _ in shown(tmp_path, "step/loss")] == [1, 2, 4, 5, 7]


def test_a_copy_of_the_files_lacks_nothing(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "events", 0, 10)
    log = RunLog(board, [], 0)
    for epoch in range(1, 30):
        log.tell({"epochs": epoch, "steps": 10 * epoch, "val_loss": 1 / epoch, "accuracy": 0.5})
    log.copy_events(tmp_path / "copy")
    assert [step for step, _ in shown(tmp_path / "copy", "epoch/val_loss")] == list(range(10, 300, 10))
    # Whoever opened it closes it, too.
    board.close()


def test_a_disk_that_is_full_is_told_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    board = TensorBoard(tmp_path, 0, EPOCH)
    with Path("/dev/full").open("wb", buffering=0) as full, caplog.at_level(logging.WARNING):
        monkeypatch.setattr(board._writer._py_recordio_writer, "_writer", full)
        for step in range(1, 50):
            board.step(step, {"loss": 1.0})
        board.close()
    assert [record.getMessage() for record in caplog.records] == [
        "TensorBoard does not know all of this run: No space left on device"
    ]
