"""What happens beside the steps: figures are recorded and told, what diverges is stopped, checkpoints are kept."""

import copy
import math
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import keras
import pyarrow as pa
import ray.train
from ray.train.collective import broadcast_from_rank_zero
from ray.util.placement_group import get_current_placement_group

from dermaray.config import CheckpointConfig
from dermaray.errors import OutputError, TrainingError
from dermaray.training.state import SCALE, RunState, assign, values_of
from dermaray.training.store import STATE_FILE
from dermaray.training.task import PLACEMENT_GROUP, Notify, WorkerTask

_TELL_SECONDS = 0.3
_FIRST_LOOK_STEPS = 3
"""After so many steps workers look how long one takes."""

_LOOK_SECONDS = 2.0
"""Between two looks, at most: workers wait for each other then."""


class Record(keras.callbacks.Callback):  # type: ignore[misc]
    """Count steps, keep every epoch's figures and the best epoch's weights, and stop what has diverged.

    Attributes:
        asked_to_stop: Whether whoever is told of the run wants it to stop; known to the first worker alone.
    """

    def __init__(self, state: RunState, task: WorkerTask, rank: int, world_size: int, notify: Notify | None) -> None:
        super().__init__()
        self._state, self._task, self._rank, self._world_size = state, task, rank, world_size
        self._notify = notify if rank == 0 else None
        self._training = task.config.training
        self._averages = self._training.ema is not None
        self.asked_to_stop = False
        self._began = self._validating = self._told = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.monotonic()
        if self._state.step % self._task.steps_per_epoch:
            # The epoch goes on: it was in its midst when it was interrupted.
            self._state.restore_metrics(self.model)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {}).get("loss", float("nan")))
        if not math.isfinite(loss):
            raise TrainingError(self._divergence(loss))
        self._state.step += 1
        now = time.monotonic()
        if now - self._told > _TELL_SECONDS:
            self._told = now
            self._tell({"loss": loss})

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._validating = time.monotonic()
        if self._averages:
            self._trained = values_of(self.model.trainable_variables)
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        state, loss = self._state, float((logs or {})["loss"])
        # Of the first on images of a size all before do not count.
        first = len(state.history) in (0, self._training.small_epochs)
        if first or loss < state.best_epoch["val_loss"]:
            state.best = self.model.get_weights()
        if self._averages:
            assign(self.model.trainable_variables, self._trained)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = {name: float(value) for name, value in (logs or {}).items()}
        # They are those of all workers, so all of them stop here.
        if not all(math.isfinite(value) for value in figures.values()):
            raise TrainingError(f"training diverged in epoch {epoch + 1}: {figures}. {self._advice()}")
        times = {
            "train_seconds": round(self._validating - self._began, 2),
            "val_seconds": round(time.monotonic() - self._validating, 2),
        }
        figures |= times
        if self._training.small_epochs:
            figures[SCALE] = self._training.small_scale if epoch < self._training.small_epochs else 1.0
        self._state.history.append({"epoch": epoch + 1, **figures})
        self._tell(figures)
        if self._state.is_stale(self._training):
            self.model.stop_training = True

    def _tell(self, figures: dict[str, float]) -> None:
        if self._notify is not None:
            told = {"epochs": len(self._state.history), "steps": self._state.step, **figures}
            self.asked_to_stop = bool(self._notify(told))

    def _divergence(self, loss: float) -> str:
        task, step = self._task, self._state.step
        rows = task.train_plan.between(step, step + 1).shard(self._rank, self._world_size)["row"]
        names = ", ".join(task.train.image_ids.take(rows).to_pylist())
        epoch, within = divmod(step, task.steps_per_epoch)
        return (
            f"training diverged: the loss is {loss} in step {within + 1} of epoch {epoch + 1}, whose images on "
            f"worker {self._rank} are {names}. {self._advice()}"
        )

    def _advice(self) -> str:
        rate = self._training.learning_rate
        return f"Try a lower training.learning_rate than {rate:g}, or set training.clip_norm"


class StoppedEarly(Exception):
    """Whoever waits for the run wanted it to stop, and it has kept its state."""


class Checkpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """Hand the state of the run to Ray Train: after every epoch, in between as the configuration says, and to stop.

    Args:
        state: Of the run.
        config: How often.
        rank: Of this worker.
        steps_per_epoch: Of the run.
        asked_to_stop: Tells, on the first worker, whether the run is to stop.
    """

    def __init__(
        self,
        state: RunState,
        config: CheckpointConfig,
        rank: int,
        steps_per_epoch: int,
        asked_to_stop: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._state, self._rank, self._steps_per_epoch = state, rank, steps_per_epoch
        self._cadence = Cadence(config, state.step, asked_to_stop)
        self._written = threading.Event()
        self._written.set()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # The last step of an epoch is followed by its validation, and that by a checkpoint.
        if self._state.step % self._steps_per_epoch and self._cadence.is_due(self._state.step):
            self._report({"step": self._state.step})
            self._stop_where_asked()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._cadence.listen()
        self._report(self._state.history[-1])
        self._stop_where_asked()

    def _stop_where_asked(self) -> None:
        if self._cadence.stopping:
            raise StoppedEarly

    def _report(self, figures: dict[str, float]) -> None:
        group = get_current_placement_group()
        # For a search, which ends a run by force, and has to free what it held.
        metrics = {**figures, PLACEMENT_GROUP: group.id.hex() if group else None}
        self._state.capture(self.model)
        self._cadence.saved(self._state.step)
        if self._rank != 0:
            ray.train.report(metrics, checkpoint_dir_name=_name(self._state))
            return
        # One at a time: a storage that is slower than the cadence slows the run, and does not fill the memory.
        self._written.wait()
        self._written.clear()
        state = copy.copy(self._state)
        state.history = list(state.history)

        def write(_: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
            try:
                return _write(state, name)
            finally:
                self._written.set()

        ray.train.report(
            metrics,
            # So that the latest of an attempt is the last by name, whatever the clocks say.
            checkpoint_dir_name=_name(state),
            # Ray Train asks for a folder to copy; what is to be written is in memory.
            checkpoint=ray.train.Checkpoint.from_directory(tempfile.gettempdir()),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=write,
            delete_local_checkpoint_after_upload=False,
        )


class Cadence:
    """When a checkpoint is due: after the same steps on all workers, whatever their clocks say.

    Args:
        config: How often.
        step: Steps done at the start.
        asked_to_stop: Tells, on the first worker, whether the run is to stop.

    Attributes:
        stopping: Whether the run is to stop with the next checkpoint, as all workers know it.
    """

    def __init__(self, config: CheckpointConfig, step: int, asked_to_stop: Callable[[], bool]) -> None:
        self._config, self._asked_to_stop = config, asked_to_stop
        self._saved_step, self._saved_at = step, time.monotonic()
        self._look_at = step + _FIRST_LOOK_STEPS
        self.stopping = False

    def is_due(self, step: int) -> bool:
        """Tell whether there is to be a checkpoint after this step."""
        every = self._config.every_steps
        if step >= self._look_at and self._look(step):
            return True
        return every is not None and step % every == 0

    def listen(self) -> None:
        """Take the first worker's word for whether the run is to stop."""
        self.stopping = broadcast_from_rank_zero(self._asked_to_stop())

    def saved(self, step: int) -> None:
        """Count from here."""
        self._saved_step, self._saved_at = step, time.monotonic()

    def _look(self, step: int) -> bool:
        """Take the first worker's word for whether it is time, and agree on the step after which to ask again."""
        known = (time.monotonic() - self._saved_at, self._asked_to_stop())
        elapsed, self.stopping = broadcast_from_rank_zero(known)
        left = (self._config.every_seconds or math.inf) - elapsed
        pace = elapsed / (step - self._saved_step)
        self._look_at = step + max(math.ceil(min(left, _LOOK_SECONDS) / pace), 1)
        return self.stopping or left <= 0


def _name(state: RunState) -> str:
    return f"step-{state.step:010}"


def _write(state: RunState, name: str) -> ray.train.Checkpoint:
    storage = ray.train.get_context().get_storage()
    folder = storage.build_checkpoint_path_from_name(name)
    try:
        storage.storage_filesystem.create_dir(folder)
        with storage.storage_filesystem.open_output_stream(f"{folder}/{STATE_FILE}") as file:
            state.write(file)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"a checkpoint could not be written to {folder}: {error}") from error
    return ray.train.Checkpoint(folder, storage.storage_filesystem)
