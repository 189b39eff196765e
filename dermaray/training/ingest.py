"""From a Ray Data stream to the batches that Keras `fit` takes on one worker."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import ray.data
import tensorflow as tf

from dermaray.errors import DataError
from dermaray.images.spec import InputSpec

PREFETCH_BATCHES = 4


def ordered(dataset: ray.data.Dataset, world_size: int, reserved_cpus: float) -> ray.data.Dataset:
    """Keep a stream in its plan's order, and within its worker's share of what training leaves free.

    Args:
        dataset: The stream.
        world_size: Workers that run such a stream at the same time.
        reserved_cpus: CPUs that the training workers hold, over all of them.
    """
    options = dataset.context.execution_options
    options.preserve_order = True
    total = ray.cluster_resources()
    cpus = max((total.get("CPU", 1.0) - reserved_cpus) / world_size, 1.0)
    # Each worker has a stream for training and one for validation; half of the object store is for all of them.
    memory = total.get("object_store_memory", 0.0) / 2 / (2 * world_size)
    options.resource_limits = options.resource_limits.copy(cpu=cpus, object_store_memory=memory)
    return dataset


def distributed_batches(
    strategy: tf.distribute.Strategy,
    dataset: ray.data.Dataset,
    spec: InputSpec,
    batch_size: int,
    prefetch: int,
    failures: list[Exception],
) -> Any:
    """Return an endless `tf.data` stream of (pixels, labels, weights), one local batch a step.

    Args:
        strategy: What will run the steps.
        dataset: A stream of `image`, `label`, `weight` and `problem`; begun anew whenever it ends.
        spec: The shape of the pixels.
        batch_size: Rows per step on this worker; divides the stream.
        prefetch: Batches to keep ready; 0 where the stream must not run ahead of its epoch.
        failures: Receives what ends the stream: TensorFlow itself hands on no more than its text.
    """
    signature = (
        tf.TensorSpec((batch_size, *spec.shape), tf.uint8),
        tf.TensorSpec((batch_size,), tf.int32),
        tf.TensorSpec((batch_size,), tf.float32),
    )

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        try:
            while True:
                for batch in dataset.iter_batches(batch_size=batch_size, batch_format="numpy", prefetch_batches=2):
                    if problems := [problem for problem in batch["problem"] if problem]:
                        raise DataError(problems[0])
                    yield batch["image"], batch["label"], batch["weight"]
        except Exception as error:
            failures.append(error)
            raise

    def build(_: tf.distribute.InputContext) -> tf.data.Dataset:
        stream = tf.data.Dataset.from_generator(batches, output_signature=signature)
        # Endless, so that TensorFlow does not ask all workers before every step whether there is a next one.
        return stream.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)).prefetch(prefetch)

    return strategy.distribute_datasets_from_function(build)
