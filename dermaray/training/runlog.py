"""The figures of a run as they become known, told to all that keep them: TensorBoard's files, MLflow on demand."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from dermaray.training.runs import EVENTS
from dermaray.training.state import RunState
from dermaray.training.store import RunStore
from dermaray.training.task import WorkerTask

Figures = Mapping[str, float]

_log = logging.getLogger(__name__)


class Keeper(Protocol):
    """Keeps the figures of a run somewhere."""

    def step(self, step: int, figures: Figures) -> None:
        """Keep what is known after a step."""
        ...

    def epoch(self, epoch: int, figures: Figures) -> None:
        """Keep what is known after an epoch, counted from 1."""
        ...

    def end(self, state: RunState, model: Path) -> None:
        """Keep what the run has come to: its last state and its saved model."""
        ...


class RunLog:
    """Tells keepers of every epoch, whatever the workers' messages miss.

    Args:
        board: Who is told in any case.
        others: Who is told besides.
        epochs: Of which an earlier process has told.
    """

    def __init__(self, board: "TensorBoard", others: list[Keeper], epochs: int) -> None:
        self._board, self._keepers, self._epochs = board, [board, *others], epochs

    @classmethod
    @contextmanager
    def open(cls, task: WorkerTask, store: RunStore, *others: Keeper) -> "Iterator[RunLog]":
        """Yield the log of a run that stands where its store says; what an earlier process has told is not told again.

        Args:
            task: The run.
            store: What is kept of it.
            others: Who is told besides.

        Raises:
            ConfigError: `tracking.mlflow` is set and MLflow is not installed.
            OutputError: It is, and cannot be reached.
        """
        found, events = store.latest(), store.folder / EVENTS
        if found is None:
            # Of a run that was begun before this one and came to nothing.
            shutil.rmtree(events, ignore_errors=True)
        with ExitStack() as stack:
            board = TensorBoard(events, found.state.step if found else 0, task.steps_per_epoch)
            stack.callback(board.close)
            keepers = list(others)
            if task.config.tracking.mlflow is not None:
                # Seconds to import, and an extra.
                from dermaray.training.tracking import tracked_run

                keepers.append(stack.enter_context(tracked_run(task, store.folder, found and found.state)))
            yield cls(board, keepers, len(found.state.history) if found else 0)

    def tell(self, told: Figures) -> None:
        """Take what a worker tells, which is for display and may miss an epoch; see `Notify`."""
        figures = {name: value for name, value in told.items() if name not in ("epochs", "steps")}
        if "val_loss" not in figures:
            for keeper in self._keepers:
                keeper.step(int(told["steps"]), figures)
        elif told["epochs"] == self._epochs + 1:
            self._epoch(figures)

    def complete(self, state: RunState) -> None:
        """Tell of the epochs that nobody told of."""
        for row in state.history[self._epochs :]:
            self._epoch({name: row[name] for name in row if name != "epoch"})

    def copy_events(self, to: Path) -> None:
        """Copy TensorBoard's files, with all that was told so far, to a folder that does not exist."""
        self._board.close()
        shutil.copytree(self._board.folder, to)

    def end(self, state: RunState, model: Path) -> None:
        """Tell that the run has ended."""
        for keeper in self._keepers:
            keeper.end(state, model)

    def _epoch(self, figures: Figures) -> None:
        self._epochs += 1
        for keeper in self._keepers:
            keeper.epoch(self._epochs, figures)


class TensorBoard:
    """Writes event files; what an earlier process wrote beside them stays, up to the step from which the run goes on.

    Steps are the axis of all figures, so that a run that goes on takes back those of an epoch as well that was told and
    not kept. A file that cannot be written is no reason for training to end.

    Args:
        folder: Of the files.
        step: Where the run stands.
        steps_per_epoch: Of the run.
    """

    def __init__(self, folder: Path, step: int, steps_per_epoch: int) -> None:
        self.folder = folder
        self._step, self._steps_per_epoch = step, steps_per_epoch
        folder.mkdir(parents=True, exist_ok=True)
        # tensorboardX's usual writer is a thread, which dies of a full disk and leaves who writes waiting.
        self._writer = EventsWriter(str(folder / "events"))
        self._open = True
        # From here on TensorBoard forgets what earlier files have.
        self._add(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def step(self, step: int, figures: Figures) -> None:
        """Write the figures of a step, unless they are known: after the loss of a worker, steps are taken again."""
        if step > self._step:
            self._step = step
            self._write("step", step, figures)

    def epoch(self, epoch: int, figures: Figures) -> None:
        """Write the figures of an epoch."""
        self._write("epoch", epoch * self._steps_per_epoch, figures)

    def end(self, state: RunState, model: Path) -> None:
        """Nothing is left to be written."""

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._open:
            self._open = False
            with suppress(OSError):
                self._writer.close()

    def _write(self, group: str, step: int, figures: Figures) -> None:
        values = [Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in figures.items()]
        self._add(Event(step=step, summary=Summary(value=values)))

    def _add(self, event: Event) -> None:
        if not self._open:
            return
        event.wall_time = time.time()
        try:
            self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            self.close()
            _log.warning("TensorBoard does not know all of this run: %s", error.strerror)
