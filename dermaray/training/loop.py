"""What every training worker runs: build, compile, fit, and hand each best epoch's model to Ray Train."""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pyarrow as pa
import ray.train
import tensorflow as tf

from dermaray.config import TrainingConfig
from dermaray.data.streams import Recipe
from dermaray.errors import TrainingError
from dermaray.models.artifact import save_artifact
from dermaray.models.classifier import build_classifier
from dermaray.training.ingest import distributed_batches, worker_stream
from dermaray.training.losses import training_loss
from dermaray.training.multiworker import MultiWorkerModel
from dermaray.training.task import Notify, WorkerTask


def train_worker(task: WorkerTask, notify: Notify | None) -> list[dict[str, float]]:
    """Train this worker's part; called by Ray Train on every worker with the same task.

    Args:
        task: The run.
        notify: Called by the first worker, a few times a second, with what a progress display shows.

    Returns:
        The figures of every epoch, over all workers.
    """
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    # Before anything else of TensorFlow: collective operations must be set up first.
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if world_size > 1 else tf.distribute.get_strategy()
    config = task.config
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = build_classifier(config.model, config.input, len(task.label_set.classes), MultiWorkerModel)
        compile_model(model, config.training)
    steps = task.train_plan.steps // config.training.epochs
    report = _Report(rank, steps, task, notify)
    failures: list[Exception] = []
    try:
        model.fit(
            _batches(task, strategy, "train", rank, world_size, failures),
            epochs=config.training.epochs,
            steps_per_epoch=steps,
            validation_data=_batches(task, strategy, "val", rank, world_size, failures),
            validation_steps=task.val_plan.steps,
            callbacks=[report],
            verbose=0,
        )
    except tf.errors.OpError as error:
        raise (failures or [error])[0] from None
    return report.history


def compile_model(model: keras.Model, training: TrainingConfig) -> None:
    """Give a classifier its optimiser, loss and metrics."""
    rate = training.learning_rate
    optimizers: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        "adam": lambda: keras.optimizers.Adam(rate),
        "adamw": lambda: keras.optimizers.AdamW(rate),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=0.9),
    }
    model.compile(
        optimizer=optimizers[training.optimizer](),
        loss=training_loss(training),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        # XLA is slower than none on CPUs.
        jit_compile=False,
    )


def _batches(
    task: WorkerTask,
    strategy: tf.distribute.Strategy,
    split: str,
    rank: int,
    world_size: int,
    failures: list[Exception],
) -> Any:
    config, training = task.config, split == "train"
    plan, images = (task.train_plan, task.train) if training else (task.val_plan, task.val)
    recipe = Recipe(config.augment if training else (), config.seed, config.augment_engine)
    shard = plan.shard(rank, world_size)
    if not training:
        # One stream over all epochs, as for training: none is started anew.
        shard = pa.concat_tables([shard] * config.training.epochs)
    local_batch = config.training.global_batch_size // world_size
    stream = worker_stream(
        shard,
        images,
        config.input,
        recipe,
        batch_size=local_batch,
        world_size=world_size,
        reserved_cpus=task.reserved_cpus,
        cached=config.ingest.cache == "local",
    )
    return distributed_batches(strategy, stream, config.input, local_batch, failures)


class _Report(keras.callbacks.Callback):  # type: ignore[misc]
    """Tell the driver of every epoch, with the model wherever the validation loss fell."""

    def __init__(self, rank: int, steps: int, task: WorkerTask, notify: Notify | None) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        self._rank, self._steps, self._task, self._tell = rank, steps, task, notify
        self._best = float("inf")
        self._began = self._validating = self._told = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.monotonic()
        if now - self._told > 0.3:
            self._told = now
            self._notify(len(self.history), batch + 1, {"loss": float((logs or {}).get("loss", float("nan")))})

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self._validating = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        # The figures are those of all workers, so all of them stop here.
        if not all(math.isfinite(value) for value in metrics.values()):
            raise TrainingError(
                f"training diverged in epoch {epoch + 1}: {metrics}. Try a lower training.learning_rate than "
                f"{self._task.config.training.learning_rate:g}"
            )
        row = {
            "epoch": epoch + 1,
            **metrics,
            "train_seconds": round(self._validating - self._began, 2),
            "val_seconds": round(time.monotonic() - self._validating, 2),
        }
        self.history.append(row)
        self._notify(epoch + 1, 0, metrics)
        improved = metrics["val_loss"] < self._best
        self._best = min(self._best, metrics["val_loss"])
        if not ((improved or epoch == 0) and self._rank == 0):
            # Every worker must report, or Ray Train waits for it.
            ray.train.report(row)
            return
        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), row)
            ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _notify(self, epochs: int, batches: int, figures: dict[str, float]) -> None:
        if self._rank == 0 and self._tell is not None:
            self._tell({"epochs": epochs, "steps": epochs * self._steps + batches, **figures})

    def _save(self, folder: Path, row: dict[str, float]) -> None:
        """Write the weights so far as a plain model, which loads without any class of ours."""
        task, config = self._task, self._task.config
        plain = build_classifier(config.model, config.input, len(task.label_set.classes))
        plain.set_weights(self.model.get_weights())
        provenance = {**task.provenance, "epoch": row}
        save_artifact(folder, plain, config.name, config.input, task.label_set, provenance, task.trained_on)
