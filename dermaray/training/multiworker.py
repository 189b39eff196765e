"""Keras 3 `fit` on several workers: what upstream lacks, in one place.

Keras 3 cannot `fit` under TensorFlow's `MultiWorkerMirroredStrategy` (keras-team/keras#20585, ray-project/ray#47464,
ray-project/ray#48910). Two of its steps fail there, and `MultiWorkerModel` replaces just these:

- `_maybe_symbolic_build` draws a batch to learn the shapes and reduces it across workers, which fails on per-replica
  values. A functional model is built already, so nothing needs to be learnt.
- `_make_function` reduces every step's logs across workers with `strategy.reduce(..., axis=0)`, which a scalar does
  not have. Here each worker reads its own replica's logs; what `fit` reports per epoch it reads from the metrics
  themselves, whose variables sum over the workers, and so are exact.

`tests/integration/test_upstream.py` fails as soon as Keras needs neither.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

Step = Callable[[Any], dict[str, Any]]


class MultiWorkerModel(keras.Model):  # type: ignore[misc]
    """A functional model whose `fit` and `evaluate` take a `tf.distribute.DistributedDataset`.

    Batches are (pixels, labels, weights). The training loss is the sum of the weighted losses of all rows, over all
    workers, divided by the rows of the global batch (Keras's `sum_over_batch_size`, scaled by the workers): not by
    their weights, whose sum each worker would know of its own rows alone. Metrics count rows whatever their weight,
    except that a weight of 0 takes a row out of every validation figure, so that the last batch can be filled up.
    """

    train_function: Any
    test_function: Any

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Make the metrics' variables alone: a functional model has its own from the start."""
        if self._compile_metrics is not None and not self._compile_metrics.built:
            with self.distribute_strategy.scope():
                predicted = tf.zeros((1, *self.output_shape[1:]))
                self._compile_metrics.build(tf.zeros((1,), tf.int32), predicted)

    def make_train_function(self, force: bool = False) -> None:
        """Prepare the function that `fit` calls once a step."""
        if self.train_function is None or force:
            self.train_function = self._per_step(self.train_step)

    def make_test_function(self, force: bool = False) -> None:
        """Prepare the function that `evaluate` calls once a step."""
        if self.test_function is None or force:
            self.test_function = self._per_step(self.test_step)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the metrics with the rows that count, each alike: class weights are for the training loss alone."""
        counts = None if sample_weight is None else keras.ops.cast(sample_weight, "bool")
        logs: dict[str, Any] = super().compute_metrics(x, y, y_pred, counts)
        return logs

    def test_step(self, data: Any) -> dict[str, Any]:
        """Score one batch, weighting the loss by the rows that count rather than by the size of the batch.

        The loss is the cross entropy whatever the model is trained with: a proper scoring rule by which runs with
        different losses and class weights can be compared, and by which their best epochs are chosen.
        """
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        predicted = self(x, training=False)
        losses = keras.ops.sparse_categorical_crossentropy(y, predicted)
        self._loss_tracker.update_state(losses, sample_weight=weight)
        logs: dict[str, Any] = self.compute_metrics(x, y, predicted, sample_weight=weight)
        return logs

    def _per_step(self, step: Step) -> Callable[[Iterator[Any]], dict[str, Any]]:
        strategy = self.distribute_strategy
        if self.jit_compile:
            step = tf.function(step, jit_compile=True, reduce_retracing=True)

        @tf.function  # type: ignore[untyped-decorator]
        def on_replicas(batch: Any) -> dict[str, Any]:
            logs = strategy.run(step, args=(batch,))
            return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

        return lambda iterator: on_replicas(next(iterator))
