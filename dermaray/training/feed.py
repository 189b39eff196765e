"""What a training worker draws from: its parts of the plans, as Ray Data streams.

Nothing here imports TensorFlow, so that a stream can start while TensorFlow is imported: both take seconds.
"""

import math
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import ray.data

from dermaray.data.streams import ImageTable, Recipe, block_rows, image_stream
from dermaray.errors import DataError
from dermaray.images.spec import InputSpec
from dermaray.training.plan import Plan
from dermaray.training.task import WorkerTask

BLOCKS_PER_ACTOR = 6
"""Blocks of a stream in the object store, for each of its actors: as many as it has tasks, and as many to spare, since
blocks are taken in order and not as they come."""

Batch = tuple[npt.NDArray[Any], ...]
"""Pixels, labels and weights, of any number of rows."""


class Feed:
    """A run, and the images of it that one worker takes.

    Attributes:
        task: The run.
        rank: Which worker.
        world_size: Of how many.
        batch_size: Rows per step on this worker.
    """

    def __init__(self, task: WorkerTask, rank: int, world_size: int) -> None:
        self.task, self.rank, self.world_size = task, rank, world_size
        self.batch_size = task.config.training.global_batch_size // world_size
        self._ahead: dict[int, Iterator[Batch]] = {}

    def begin(self, step: int) -> None:
        """Start the stream that `train` will be asked for."""
        self._ahead[step] = self.train(step)

    def train(self, step: int) -> Iterator[Batch]:
        """Return the training images from a step on, as far as one call of `fit` takes them."""
        if step in self._ahead:
            return self._ahead.pop(step)
        task, config = self.task, self.task.config
        recipe = Recipe(config.augment, config.seed, config.augment_engine)
        return self._blocks(task.train_plan.between(step, task.stop_after(step)), task.train, recipe)

    def validate(self, passes: int) -> Iterator[Batch]:
        """Return the validation images, so many times."""
        task = self.task
        return self._blocks(task.val_plan.repeated(passes), task.val, Recipe())

    def _blocks(self, plan: Plan, images: ImageTable, recipe: Recipe) -> Iterator[Batch]:
        workers = self.world_size * self.task.concurrent
        stream = worker_stream(
            plan.shard(self.rank, self.world_size),
            images,
            self.task.config.input,
            recipe,
            batch_size=self.batch_size,
            world_size=workers,
            reserved_cpus=workers * self.task.cpus_per_worker,
            cached=self.task.config.ingest.cache == "local",
        )
        return started(stream)


def worker_stream(
    plan: pa.Table,
    images: ImageTable,
    spec: InputSpec,
    recipe: Recipe,
    *,
    batch_size: int,
    world_size: int,
    reserved_cpus: float,
    cached: bool,
) -> ray.data.Dataset:
    """Return one worker's stream, in its plan's order and within its share of what training leaves free.

    Args:
        plan: See `image_stream`.
        images: See `image_stream`.
        spec: See `image_stream`.
        recipe: See `image_stream`.
        batch_size: Rows per step on this worker.
        world_size: Workers that run such a stream at the same time.
        reserved_cpus: CPUs that the training workers hold, over all of them.
        cached: See `image_stream`.
    """
    rows = block_rows(spec, batch_size)
    total = ray.cluster_resources()
    # As many for training as for validation: but for their start the two do not work at the same time.
    actors = max(round((total.get("CPU", 1.0) - reserved_cpus) / world_size), 1)
    dataset = image_stream(plan, images, spec, recipe, rows, cached, actors)
    options = dataset.context.execution_options
    # Each worker has a stream for training and one for validation; half of the object store is for all of them.
    share = total.get("object_store_memory", 0.0) / 2 / (2 * world_size)
    wanted = BLOCKS_PER_ACTOR * actors * rows * math.prod(spec.shape)
    options.resource_limits = options.resource_limits.copy(object_store_memory=min(share, wanted))
    return dataset


def started(dataset: ray.data.Dataset) -> Iterator[Batch]:
    """Start a stream now, in a thread, rather than when it is first asked for a block; return its blocks.

    Args:
        dataset: What `image_stream` returns.

    Raises:
        DataError: When a block is taken that has an image which could not be read.
    """
    blocks = iter(dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1))
    first: Future[dict[str, npt.NDArray[Any]] | None] = Future()

    def ask() -> None:
        try:
            first.set_result(next(blocks, None))
        except BaseException as error:
            first.set_exception(error)

    # As a daemon, so that nothing waits for images that nobody takes.
    threading.Thread(target=ask, name="first-block", daemon=True).start()

    def checked() -> Iterator[Batch]:
        block = first.result()
        while block is not None:
            if problems := [problem for problem in block["problem"] if problem]:
                raise DataError(problems[0])
            yield block["image"], block["label"], block["weight"]
            block = next(blocks, None)

    return checked()
