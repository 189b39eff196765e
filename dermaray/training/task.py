"""All that a training worker is told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dermaray.config import RunConfig
from dermaray.data.streams import ImageTable
from dermaray.labels import LabelSet
from dermaray.training.plan import Plan

Notify = Callable[[dict[str, Any]], None]
"""Takes `epochs` and `steps` done so far, and the latest figures by name."""


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
        trained_on: The training images as the model's artifact lists them, rows of `TRAINED_ON_SCHEMA`.
        reserved_cpus: CPUs that the training workers hold, over all of them.
    """

    config: RunConfig
    label_set: LabelSet
    provenance: dict[str, Any]
    train: ImageTable
    val: ImageTable
    train_plan: Plan
    val_plan: Plan
    trained_on: pa.Table
    reserved_cpus: float
