"""A training run, from a configuration to an artifact."""

import csv
import hashlib
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.train
from ray.train.tensorflow import TensorflowTrainer

from dermaray.config import RunConfig, dump_config
from dermaray.data.frames import remove_frames
from dermaray.data.manifest import Manifest
from dermaray.data.streams import ImageTable
from dermaray.errors import TrainingError, find_user_error
from dermaray.models.artifact import TRAINED_ON_SCHEMA
from dermaray.training.plan import training_plan, validation_plan, weigh_classes
from dermaray.training.task import Notify, WorkerTask


def plan_run(config: RunConfig, manifest: Manifest, reserved_cpus: float, leaks: Sequence[str] = ()) -> WorkerTask:
    """Fix all that a run will do, before any worker starts.

    Args:
        config: The run.
        manifest: Its data; of data in folds what `for_fold` returns.
        reserved_cpus: CPUs that the training workers will hold, over all of them.
        leaks: What leaks between the splits, a sentence each, where the user trains in spite of it; kept with the
            model.

    Raises:
        ConfigError: The batch is larger than an epoch, class weights do not fit the classes, or a manifest of folds is
            given and none of them is named.
        DataError: A split that is needed is empty, or the manifest has no such fold.
    """
    settings = config.training
    train_rows, val_rows = manifest.rows("train"), manifest.rows("val")
    train_images, val_images = image_table(manifest, train_rows), image_table(manifest, val_rows)
    batch, labels = settings.global_batch_size, train_images.labels
    plan = training_plan(labels, settings.epochs, batch, config.data.balance, config.seed)
    return WorkerTask(
        config=config,
        label_set=manifest.label_set,
        provenance=_provenance(config, manifest, leaks),
        train=train_images,
        val=val_images,
        train_plan=weigh_classes(plan, labels, settings.class_weights, manifest.label_set.classes),
        val_plan=validation_plan(val_rows.num_rows, batch),
        trained_on=train_rows.select(TRAINED_ON_SCHEMA.names).replace_schema_metadata(),
        reserved_cpus=reserved_cpus,
    )


def train(task: WorkerTask, out: Path, cpus_per_worker: float, notify: Notify | None = None) -> list[dict[str, float]]:
    """Train on the connected Ray cluster and write `model/`, `config.yaml` and `history.csv`.

    The model is that of the epoch with the lowest validation loss.

    Args:
        task: What to do.
        out: An existing folder that every worker can write to.
        cpus_per_worker: Logical CPUs to set aside for each worker.
        notify: Called by the first worker while it trains, with `epochs` and `steps` done and the latest figures.

    Returns:
        The figures of every epoch.

    Raises:
        TrainingError: A worker failed.
    """
    config = task.config
    task_ref = ray.put(task)
    trainer = TensorflowTrainer(
        # Imported on the worker: the loop's model class exists only where TensorFlow may be set up for it.
        lambda: _train_worker(task_ref, notify),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.scaling.num_workers,
            use_gpu=config.scaling.use_gpu,
            resources_per_worker={"CPU": cpus_per_worker, **({"GPU": 1} if config.scaling.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            name=config.name,
            storage_path=str((out / "checkpoints").resolve()),
            # Only an epoch that is the best so far hands in a checkpoint: the latest is the best.
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result = _fit(trainer)
    finally:
        if config.ingest.cache != "none":
            remove_frames([images.frames(config.input) for images in (task.train, task.val)])
    history: list[dict[str, float]] = result.return_value
    _write_history(out / "history.csv", history)
    (out / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    with result.checkpoint.as_directory() as folder:
        shutil.copytree(folder, out / "model")
    shutil.rmtree(out / "checkpoints")
    return history


def _train_worker(task_ref: Any, notify: Notify | None) -> list[dict[str, float]]:
    from dermaray.training.loop import train_worker

    return train_worker(ray.get(task_ref), notify)


def image_table(manifest: Manifest, rows: pa.Table) -> ImageTable:
    """Return rows of a manifest as what image streams draw from."""
    labels = np.asarray(manifest.label_indices(rows), np.int32)
    heights, widths = (rows[name].to_numpy().astype(np.int32) for name in ("height", "width"))
    image_ids, uris = (rows[name].combine_chunks() for name in ("image_id", "uri"))
    return ImageTable(image_ids, uris, labels, heights, widths, _digest(rows.select(["uri", "sha256"])))


def _digest(rows: pa.Table) -> str:
    """Return a SHA-256 over all values of a table, in order."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema.remove_metadata()) as writer:
        writer.write_table(rows.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _provenance(config: RunConfig, manifest: Manifest, leaks: Sequence[str]) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "data": {"digest": manifest.digest, "images": manifest.table.num_rows, **manifest.facts},
        "leaks": list(leaks),
    }


def _fit(trainer: TensorflowTrainer) -> ray.train.Result:
    """Run the trainer; a user's mistake that a worker noticed is raised as that mistake."""
    try:
        with _interruptible():
            return trainer.fit()
    except ray.train.WorkerGroupError as error:
        failures = list(error.worker_failures.values())
        for failure in failures:
            if mistake := find_user_error(failure):
                raise mistake from error
        first = str(failures[0]).strip().splitlines()[-1] if failures else str(error)
        raise TrainingError(f"{len(failures)} training workers failed: {first}. -v shows their logs") from error
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"training failed: {str(error).strip().splitlines()[-1]}") from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make Ctrl-C a KeyboardInterrupt again: Ray Train's handler aborts the run, exits, and is left in place."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        # Only the main thread may have handlers; in another, Ray Train set none.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
