"""From a Ray Data stream to the batches that Keras `fit` takes on one worker."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data
import tensorflow as tf

from dermaray.data.streams import ImageTable, Recipe, block_rows, image_stream
from dermaray.errors import DataError
from dermaray.images.spec import InputSpec
from dermaray.training.multiworker import own_part

PREFETCH_BATCHES = 4

BLOCKS_PER_ACTOR = 6
"""Blocks of a stream in the object store, for each of its actors: as many as it has tasks, and as many to spare, since
blocks are taken in order and not as they come."""

Batch = tuple[npt.NDArray[Any], ...]


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
    # As many for training as for validation: the two seldom work at the same time.
    actors = max(round((total.get("CPU", 1.0) - reserved_cpus) / world_size), 1)
    dataset = image_stream(plan, images, spec, recipe, rows, cached, actors)
    options = dataset.context.execution_options
    # Each worker has a stream for training and one for validation; half of the object store is for all of them.
    share = total.get("object_store_memory", 0.0) / 2 / (2 * world_size)
    wanted = BLOCKS_PER_ACTOR * actors * rows * math.prod(spec.shape)
    options.resource_limits = options.resource_limits.copy(object_store_memory=min(share, wanted))
    return dataset


def distributed_batches(
    strategy: tf.distribute.Strategy,
    dataset: ray.data.Dataset,
    spec: InputSpec,
    batch_size: int,
    failures: list[Exception],
) -> Any:
    """Return what `fit` takes: (pixels, labels, weights), one local batch a step, for as many steps as planned.

    Args:
        strategy: What will run the steps.
        dataset: A stream of `image`, `label`, `weight` and `problem`, over all epochs.
        spec: The shape of the pixels.
        batch_size: Rows per step on this worker; divides the stream.
        failures: Receives what ends the stream: TensorFlow itself hands on no more than its text.
    """
    signature = (
        tf.TensorSpec((batch_size, *spec.shape), tf.uint8),
        tf.TensorSpec((batch_size,), tf.int32),
        tf.TensorSpec((batch_size,), tf.float32),
    )

    def batches() -> Iterator[Batch]:
        try:
            yield from rebatched(_blocks(dataset), batch_size)
        except Exception as error:
            failures.append(error)
            raise

    def build(_: tf.distribute.InputContext) -> tf.data.Dataset:
        stream = tf.data.Dataset.from_generator(batches, output_signature=signature)
        # Called endless, so that TensorFlow does not ask all workers before every step whether there is a next one. To
        # begin it anew at its end, for what is prefetched, would read images that nobody takes.
        stream = stream.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        options = tf.data.Options()
        # It finds nothing to tune here, and its thread sleeps, in the end for a minute: whoever ends a stream would
        # wait for it to wake up.
        options.autotune.enabled = False
        return stream.prefetch(PREFETCH_BATCHES).with_options(options)

    return own_part(strategy.distribute_datasets_from_function(build))


def rebatched(blocks: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Cut columns of any number of rows into batches of `size`; what remains at the end is left out.

    A batch that lies within a block is a view of it, not a copy.
    """
    parts: list[Batch] = []
    held = 0
    for block in blocks:
        start, rows = 0, len(block[0])
        while start < rows:
            stop = min(start + size - held, rows)
            parts.append(tuple(column[start:stop] for column in block))
            held, start = held + stop - start, stop
            if held == size:
                yield parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))
                parts, held = [], 0


def _blocks(dataset: ray.data.Dataset) -> Iterator[Batch]:
    for block in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
        if problems := [problem for problem in block["problem"] if problem]:
            raise DataError(problems[0])
        yield block["image"], block["label"], block["weight"]
