"""The event files of a run: all that was told, and every step once, however often the run was taken up again."""

from pathlib import Path

from dermaray.training.runlog import RunLog, TensorBoard
from tests.event_files import shown


def write(folder: Path, start: int, *steps: int) -> None:
    board = TensorBoard(folder, start)
    for step in steps:
        board.step(step, {"loss": float(step)})
    board.close()


def test_steps_that_are_taken_again_are_shown_once(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 3, 4, 5)
    # Of two files that were begun in the same second the names tell no order, or are the same.
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "earlier.tfevents")
    write(tmp_path, 3, 4, 5, 6, 4, 5, 6, 7)
    assert shown(tmp_path, "step/loss") == [(step, float(step)) for step in range(1, 8)]


def test_a_copy_of_the_files_lacks_nothing(tmp_path: Path) -> None:
    log = RunLog(TensorBoard(tmp_path / "events", 0), [], 0)
    epochs = range(1, 30)
    for epoch in epochs:
        log.tell({"epochs": epoch, "steps": 10 * epoch, "val_loss": 1 / epoch, "accuracy": 0.5})
    log.copy_events(tmp_path / "copy")
    assert [step for step, _ in shown(tmp_path / "copy", "epoch/val_loss")] == list(epochs)
