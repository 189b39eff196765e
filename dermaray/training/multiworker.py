"""Keras 3 `fit` on several workers: what upstream lacks, in one place.

Keras 3 cannot `fit` under TensorFlow's `MultiWorkerMirroredStrategy` (keras-team/keras#20585, ray-project/ray#47464,
ray-project/ray#48910). Two of its steps fail there, and `MultiWorkerModel` replaces just these:

- `_maybe_symbolic_build` draws a batch to learn the shapes and reduces it across workers, which fails on per-replica
  values. A functional model is built already, so nothing needs to be learnt.
- `_make_function` reduces every step's logs across workers with `strategy.reduce(..., axis=0)`, which a scalar does
  not have. Here each worker reads its own replica's logs; what `fit` reports per epoch it reads from the metrics
  themselves, whose variables sum over the workers, and so are exact.

Others are not failures, but would make N workers differ from one, or slow. Batch normalisation is one more; see
`normalization`.

- A loss is divided by the rows of a worker and then by the workers, and added up in float32.
- An optimiser clips gradients before it sums them over the workers (tensorflow/tensorflow#33929 has why);
  `summing_first` gives one that sums first.
- `evaluate` begins its data anew in every epoch, so that its stream would have to be started anew.
- What a strategy distributes goes through a second stream, to the devices, whose thread sleeps up to a minute while a
  training that has ended waits for it; on CPUs `own_part` takes batches from where they are made.

`tests/integration/test_upstream.py` fails as soon as Keras can `fit` there, keeps the variance, or clips after the sum.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.distribute.input_lib import DistributedDatasetsFromFunction

Step = Callable[[Any], dict[str, Any]]


class MultiWorkerModel(keras.Model):  # type: ignore[misc]
    """A functional model whose `fit` and `evaluate` take a `tf.distribute.DistributedDataset`.

    Batches are (pixels, labels, weights). Metrics count rows whatever their weight, except that a weight of 0 takes a
    row out of every validation figure, so that the last batch can be filled up.
    """

    train_function: Any
    test_function: Any

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Take an optimiser, a `keras.losses.Loss` and metrics; losses are added up in float64.

        So that which epoch is best does not depend on the number of workers.
        """
        super().compile(*args, **kwargs)
        # Past Keras's own way to set what a layer has, which would keep it as one more metric.
        object.__setattr__(self, "_loss_tracker", keras.metrics.Mean(name="loss", dtype="float64"))

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

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Go on in the stream of validation batches where `fit` calls this anew."""
        cached = getattr(self, "_eval_epoch_iterator", None)
        if cached is not None and not isinstance(cached._distributed_dataset, _Continued):
            cached._distributed_dataset = _Continued(cached._distributed_dataset)
        return super().evaluate(*args, **kwargs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the weighted losses of this worker's rows, summed and divided by the rows of the global batch.

        Not by their weights, whose sum each worker would know of its own rows alone. Keras divides by the rows of a
        worker and then by the workers, which rounds twice, and for three of them otherwise than for one.
        """
        losses = self.loss.call(y, _in_float64(y_pred))
        if sample_weight is not None:
            losses *= keras.ops.cast(sample_weight, losses.dtype)
        rows = tf.size(losses) * self.distribute_strategy.num_replicas_in_sync
        mean = keras.ops.cast(keras.ops.sum(losses) / keras.ops.cast(rows, losses.dtype), y_pred.dtype)
        return mean + sum(self._aggregate_additional_loss(loss) for loss in self.losses)

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
        losses = keras.ops.sparse_categorical_crossentropy(y, _in_float64(predicted))
        self._loss_tracker.update_state(losses, sample_weight=weight)
        logs: dict[str, Any] = self.compute_metrics(x, y, predicted, sample_weight=weight)
        return logs

    def _per_step(self, step: Step) -> Callable[[Iterator[Any]], dict[str, Any]]:
        strategy = self.distribute_strategy
        if self.jit_compile:
            step = tf.function(step, jit_compile=True, reduce_retracing=True, autograph=False)

        # AutoGraph would leave what it generates in the temporary folder of a process that is killed.
        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def on_replicas(batch: Any) -> dict[str, Any]:
            logs = strategy.run(step, args=(batch,))
            return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

        return lambda iterator: on_replicas(next(iterator))


def _in_float64(probabilities: Any) -> Any:
    """Return probabilities in float64, by whose logits Keras computes a loss where they come of a softmax.

    In float32 the last digit of a logarithm depends on where in the batch a row stands.
    """
    logits = getattr(probabilities, "_keras_logits", None)
    if logits is None:
        return keras.ops.cast(probabilities, "float64")
    return keras.ops.softmax(keras.ops.cast(logits, "float64"))


class _Continued:
    """A data set of which there is one iterator, however often it is asked for one."""

    def __init__(self, dataset: Any) -> None:
        self._iterator = iter(dataset)

    def __iter__(self) -> Iterator[Any]:
        iterator: Iterator[Any] = self._iterator
        return iterator


class _OwnPart(DistributedDatasetsFromFunction):  # type: ignore[misc]
    """The part of a distributed data set that is made in this process, which has one device."""

    def __iter__(self) -> Iterator[Any]:
        (own,) = self._datasets
        return iter(own)


def own_part(distributed: Any) -> Any:
    """Return what `Strategy.distribute_datasets_from_function` gave, without the stream that fetches to devices.

    Where there are GPUs that stream copies while they compute, and is left in.
    """
    if isinstance(distributed, DistributedDatasetsFromFunction) and not tf.config.list_logical_devices("GPU"):
        # Keras asks for one of these, and there is no public way to make one.
        distributed.__class__ = _OwnPart
    return distributed


class _SumFirst:
    """A mixin for Keras's optimisers: gradients are summed over the workers before they are clipped, not after.

    They are rounded to their variables' precision when they are summed, for `partial_sums` gives them in float64.
    """

    def _backend_apply_gradients(self, grads: list[Any], trainable_variables: list[Any]) -> None:
        pairs = super()._all_reduce_sum_gradients(zip(grads, trainable_variables, strict=True))  # type: ignore[misc]
        summed = [tf.cast(gradient, variable.dtype) for gradient, variable in pairs]
        super()._backend_apply_gradients(summed, trainable_variables)  # type: ignore[misc]

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars


def summing_first(optimizer: type[Any]) -> type[Any]:
    """Return a class of optimisers that clips the gradients of the global batch, not those of each worker's part."""
    return type(optimizer.__name__, (_SumFirst, optimizer), {})
