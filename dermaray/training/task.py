"""All that a training worker is told, fixed before any of them starts."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dermaray.config import RunConfig
from dermaray.data.manifest import Manifest
from dermaray.data.streams import ImageTable
from dermaray.labels import LabelSet
from dermaray.models.artifact import SEEN_SCHEMA
from dermaray.training.plan import Plan, training_plan, validation_plan, weigh_classes
from dermaray.training.stages import Stage, stages
from dermaray.training.start import Start, start_of

PLACEMENT_GROUP = "placement_group"
"""What a worker's report calls the resources of the workers: the id of their placement group."""

Notify = Callable[[dict[str, Any]], bool | None]
"""Takes `epochs` and `steps` done so far, and the latest figures by name; returns whether the run is to stop here."""


@dataclass(frozen=True)
class WorkerTask:
    """One run, as every one of its workers gets it.

    Attributes:
        config: The run.
        label_set: The classes.
        provenance: What the model is made of, for its artifact.
        train: The training images.
        val: The validation images.
        train_plan: Which training image at which step, over all epochs.
        val_plan: One pass over the validation images.
        trained_on: The training images as the model's artifact lists them, rows of `SEEN_SCHEMA`, and those of what
            it starts from.
        chosen_on: The images that chose what it starts from; see `Start`.
        cpus_per_worker: CPUs that each training worker holds.
        concurrent: Runs of this size at a time, trials of one search.
    """

    config: RunConfig
    label_set: LabelSet
    provenance: dict[str, Any]
    train: ImageTable
    val: ImageTable
    train_plan: Plan
    val_plan: Plan
    trained_on: pa.Table
    chosen_on: pa.Table
    cpus_per_worker: float
    concurrent: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return self.train_plan.steps // self.config.training.epochs

    @property
    def stages(self) -> list[Stage]:
        """The run's stages, in order."""
        return stages(self.config.training, self.steps_per_epoch)

    def stop_after(self, step: int) -> int:
        """Return where a call of `fit` that begins at a step ends: with its epoch, if in its midst, else its stage."""
        epoch = self.steps_per_epoch
        if within := step % epoch:
            return step - within + epoch
        return next(stage.stop for stage in self.stages if step < stage.stop)


def plan_run(
    config: RunConfig, manifest: Manifest, cpus_per_worker: float, *, leaks: Sequence[str] = (), concurrent: int = 1
) -> WorkerTask:
    """Fix all that a run will do, before any worker starts.

    Args:
        config: The run.
        manifest: Its data; of data in folds what `for_fold` returns.
        cpus_per_worker: CPUs that each training worker will hold.
        leaks: What leaks between the splits, a sentence each, where the user trains in spite of it; kept with the
            model.
        concurrent: Runs of this size that will train at a time.

    Raises:
        ConfigError: The batch is larger than an epoch, class weights do not fit the classes, or a manifest of folds is
            given and none of them is named.
        DataError: A split that is needed is empty, or the manifest has no such fold.
    """
    settings = config.training
    train_rows, val_rows = manifest.rows("train"), manifest.rows("val")
    train_images, val_images = image_table(manifest, train_rows), image_table(manifest, val_rows)
    batch, labels = settings.global_batch_size, train_images.labels
    start = start_of(config.model)
    plan = training_plan(labels, settings.epochs, batch, config.data.balance, config.seed)
    return WorkerTask(
        config=config,
        label_set=manifest.label_set,
        provenance=_provenance(config, manifest, leaks, start),
        train=train_images,
        val=val_images,
        train_plan=weigh_classes(plan, labels, settings.class_weights, manifest.label_set.classes),
        val_plan=validation_plan(val_rows.num_rows, batch),
        # An image may be in both, under other names of its lesion.
        trained_on=pa.concat_tables([train_rows.select(SEEN_SCHEMA.names).cast(SEEN_SCHEMA), start.trained_on]),
        chosen_on=start.decided_on,
        cpus_per_worker=cpus_per_worker,
        concurrent=concurrent,
    )


def image_table(manifest: Manifest, rows: pa.Table) -> ImageTable:
    """Return rows of a manifest as what image streams draw from."""
    labels = np.asarray(manifest.label_indices(rows), np.int32)
    heights, widths = (rows[name].to_numpy().astype(np.int32) for name in ("height", "width"))
    image_ids, uris, sha256s = (rows[name].combine_chunks() for name in ("image_id", "uri", "sha256"))
    return ImageTable(image_ids, uris, sha256s, labels, heights, widths, _digest(rows.select(["uri", "sha256"])))


def _digest(rows: pa.Table) -> str:
    """Return a SHA-256 over all values of a table, in order."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema.remove_metadata()) as writer:
        writer.write_table(rows.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _provenance(config: RunConfig, manifest: Manifest, leaks: Sequence[str], start: Start) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "data": manifest.description(),
        "leaks": list(leaks),
        **({"started_from": start.provenance} if start.provenance else {}),
    }
