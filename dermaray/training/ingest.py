"""From the blocks of a stream to the batches that Keras `fit` takes on one worker."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from dermaray.images.resize import resize
from dermaray.images.spec import InputSpec
from dermaray.training.feed import Batch
from dermaray.training.multiworker import own_part

PREFETCH_BATCHES = 4


def distributed_batches(
    strategy: tf.distribute.Strategy,
    blocks: Iterable[Batch],
    spec: InputSpec,
    batch_size: int,
    failures: list[Exception],
) -> Any:
    """Return what `fit` takes: (pixels, labels, weights), one local batch a step, for as many steps as planned.

    Args:
        strategy: What will run the steps.
        blocks: Over all epochs.
        spec: The shape that the pixels get: their own, or a smaller one.
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
            yield from rebatched(shrunk(blocks, spec), batch_size)
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


def shrunk(blocks: Iterable[Batch], spec: InputSpec) -> Iterator[Batch]:
    """Scale the images of blocks to another size, where they have not that already."""
    for pixels, *others in blocks:
        if pixels.shape[1:] == spec.shape:
            yield pixels, *others
        else:
            yield np.stack([resize(image, spec.shape[:2]) for image in pixels]), *others


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
