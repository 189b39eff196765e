"""The figures of a run as TensorBoard reads them, while it runs and afterwards."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter

from dermaray.training.state import RunState


class EventLog:
    """Writes event files into a folder; a context manager. What an earlier process wrote there stays.

    Args:
        folder: Made where it is missing.
        epochs: That an earlier process has written.
    """

    def __init__(self, folder: Path, epochs: int) -> None:
        self._writer, self._epochs = SummaryWriter(str(folder)), epochs

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def tell(self, told: Mapping[str, float]) -> None:
        """Write what a worker tells, which is for display and may miss an epoch; see `Notify`."""
        figures = {name: value for name, value in told.items() if name not in ("epochs", "steps")}
        if "val_loss" not in figures:
            self._write("step", figures, int(told["steps"]))
        elif told["epochs"] == self._epochs + 1:
            self._epochs += 1
            self._write("epoch", figures, self._epochs)

    def complete(self, state: RunState) -> None:
        """Write the epochs that nobody told of."""
        for row in state.history[self._epochs :]:
            self._write("epoch", {name: row[name] for name in row if name != "epoch"}, int(row["epoch"]))
        self._epochs = len(state.history)

    def _write(self, group: str, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()
