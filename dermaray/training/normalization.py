"""Batch normalisation over the global batch, whichever workers hold it.

Keras's own, where it is synchronised (keras-team/keras#18671), takes the variance as E(x^2) - E(x)^2, of which float32
leaves few digits where a channel varies little about a large mean. What else it sums comes out a little different for
every way in which a batch is cut into parts, and where a gradient nearly cancels, what remains is mostly that rounding.

Here each image is summed by itself, in its own precision, which gives the same wherever the image is; over images and
workers sums go in float64, where their order does not show. So what a network computes of a batch is the same on any
number of workers, to the bit in float32 where its other kernels do so too. The gradient is written out (Ioffe and
Szegedy 2015, "Batch Normalization", section 3): fewer exchanges a layer, and on CPUs, where each pass over the
activations is dear, two thirds of the time.

A worker that is alone, and need not be equal to many, takes TensorFlow's own kernel for all of it, as Keras 2 did and
Keras 3 does not: a step of EfficientNet-Lite0 takes six tenths of the time. The kernel adds up in float32, and of a
layer of 300,000 values a channel leaves four digits of the variance.
"""

from typing import Any

import keras
import tensorflow as tf

Tensor = Any


def normalize_together(model: keras.Model, exact: bool = False) -> None:
    """Let every batch normalisation of a functional model take its statistics over the global batch.

    Args:
        model: The model.
        exact: How float32 is rounded does not depend on the number of workers, and gradients of scale and shift stay in
            float64, for an optimiser that rounds them; see `partial_sums`.
    """
    for layer in model.layers:
        if type(layer) is keras.layers.BatchNormalization:
            # `keras.applications` builds these layers itself, and takes no other class.
            layer.__class__ = _GlobalBatchNormalization
            layer.exact = exact


class _GlobalBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras's layer, which in training knows of all workers. Channels are last; all workers have equally many rows."""

    exact: bool

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        """Normalise float [batch, ..., channels] by the global batch's moments, or, at rest, by the moving ones."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        x = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        gamma = tf.cast(self.gamma, x.dtype) if self.scale else tf.ones(x.shape[-1], x.dtype)
        beta = tf.cast(self.beta, x.dtype) if self.center else tf.zeros(x.shape[-1], x.dtype)
        if self._alone(x):
            normalized, mean, variance = _fused(x, gamma, beta, self.epsilon)
        else:
            mean, variance = _global_moments(tf.stop_gradient(x), self.exact)
            inverse = 1 / tf.sqrt(variance + self.epsilon)
            normalized = _normalize(x, gamma, beta, tf.cast(mean, x.dtype), tf.cast(inverse, x.dtype), self.exact)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + tf.cast(now, moving.dtype) * (1.0 - self.momentum))
        return tf.cast(normalized, self.compute_dtype)

    def _alone(self, x: Tensor) -> bool:
        """Tell whether one kernel can do it: it knows of no other workers, and float32 images alone."""
        replicas: int = tf.distribute.get_replica_context().num_replicas_in_sync
        return replicas == 1 and not self.exact and x.dtype == tf.float32 and x.shape.rank == 4


def _fused(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch normalised, its mean and its variance per channel."""
    normalized, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=epsilon)
    # The kernel gives the variance that a sample says its population has, which is larger.
    values = tf.cast(tf.size(x) // tf.size(mean), x.dtype)
    return normalized, mean, variance * (1 - 1 / values)


def _global_moments(x: Tensor, exact: bool) -> tuple[Tensor, Tensor]:
    """Return mean and variance per channel, float64, over all rows of all workers."""
    axes = _within_an_image(x)
    means = tf.reduce_mean(x, axes, keepdims=True)
    variances = tf.reduce_mean(tf.math.squared_difference(x, means), axes)
    centres = tf.cast(tf.reduce_mean(means, axes), tf.float64)
    squares = tf.cast(variances, tf.float64) + tf.square(centres)
    if exact:
        squares = _with_room(squares)
    mean, square = tf.unstack(_mean_over_workers(tf.reduce_sum(tf.stack([centres, squares]), axis=1), tf.shape(x)[0]))
    # Within an image it is about the mean; between images float64 has digits to spare, but for absurdly large means.
    return mean, tf.maximum(square - tf.square(mean), 0.0)


def _with_room(values: Tensor) -> Tensor:
    """Return float64 less its last 13 bits, a part in 10^12, so that a sum of a few hundred of like size is exact."""
    return tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(values, tf.int64), ~0x1FFF), tf.float64)


def _normalize(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, inverse: Tensor, exact: bool) -> Tensor:
    """Return gamma * (x - mean) * inverse + beta, and a gradient that counts the moments as functions of x."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def normalized(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Any]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            centred, axes = x - mean, _within_an_image(x)
            each = tf.stack([tf.reduce_sum(upstream, axes), tf.reduce_sum(upstream * centred, axes) * inverse])
            sums = tf.reduce_sum(tf.cast(each, tf.float64), axis=1)
            values_a_channel = tf.size(x) // tf.size(mean)
            shift, slope = tf.unstack(tf.cast(_mean_over_workers(sums, values_a_channel), x.dtype))
            of_x = gamma * inverse * (upstream - shift - centred * (slope * inverse))
            # Of this worker's rows alone: like any gradient of weights they are summed later.
            of_beta, of_gamma = tf.unstack(sums if exact else tf.cast(sums, x.dtype))
            return of_x, of_gamma, of_beta

        return (x - mean) * (gamma * inverse) + beta, gradient

    return normalized(x, gamma, beta)


def _within_an_image(x: Tensor) -> list[int]:
    return list(range(1, x.shape.rank - 1))


def _mean_over_workers(sums: Tensor, values: Tensor) -> Tensor:
    """Return the mean of what each worker has so many values of, by their sums.

    A sum of a few float32 has all its digits in float64. The mean of each worker's mean has not, and where the whole
    falls between two float32, as one in a hundred does, it would be rounded now to the one and now to the other.
    """
    context = tf.distribute.get_replica_context()
    whole = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
    return whole / tf.cast(values * context.num_replicas_in_sync, whole.dtype)
