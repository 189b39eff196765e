"""Gradients summed in parts of a global batch that do not depend on the workers, so that neither do the weights.

The gradient of a weight is a sum over the images of a batch. In float32 its last digit depends on the order, and so on
which worker has which images; now and then such a digit moves an activation over the kink of a ReLU, and training
magnifies what comes of that. Here the batch is cut into as many parts for one worker as for many. What a kernel makes
of a part is the same wherever the part is, and the sum of a few float32 loses nothing in float64; an optimiser rounds
it once, after the workers' sums are added up. So the weights are the same to the bit.

What an image alone decides, its activations and their gradients, stays as it is where kernels compute it by the image.
Two do not, and are computed part by part as well: a product of matrices takes another order for another number of rows
(oneDNN's, by a transposed weight), and exp has one code for whole vectors and another for what is left over at a
tensor's end (Eigen's). Dropout draws a mask for each part.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from dermaray.errors import ConfigError

Tensor = Any
Operation = Callable[[Tensor, Tensor], Tensor]


def sum_in_parts(model: keras.Model, parts: int) -> None:
    """Let the layers of a functional model give float64 gradients of their weights, for an optimiser that rounds them.

    Args:
        model: The model; its batch normalisations are those of `normalize_together`.
        parts: Of the rows that this worker has of a batch, a multiple of it.

    Raises:
        ConfigError: A layer has weights to train and is none of those known here.
    """
    for layer in model.layers:
        if kind := _IN_PARTS.get(type(layer)):
            # `keras.applications` builds these layers itself, and takes no other class.
            layer.__class__ = kind
            layer.parts = parts
        elif layer.trainable_weights and not isinstance(layer, keras.layers.BatchNormalization):
            raise ConfigError(
                "training.partial_sums knows Conv2D, DepthwiseConv2D, Dense and BatchNormalization. "
                f"Received: a backbone with a {type(layer).__name__} ({layer.name})"
            )


class _Conv2D(keras.layers.Conv2D):  # type: ignore[misc]
    parts: int

    def call(self, inputs: Tensor) -> Tensor:
        return _outputs(self, inputs, self.convolution_op)


class _DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    parts: int

    def call(self, inputs: Tensor) -> Tensor:
        def convolve(x: Tensor, kernel: Tensor) -> Tensor:
            options = {"padding": self.padding, "dilation_rate": self.dilation_rate, "data_format": self.data_format}
            return keras.ops.depthwise_conv(x, kernel, strides=self.strides, **options)

        return _outputs(self, inputs, convolve)


class _Dense(keras.layers.Dense):  # type: ignore[misc]
    parts: int

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return _outputs(self, inputs, keras.ops.matmul, part_by_part=True)


class _Activation(keras.layers.Activation):  # type: ignore[misc]
    parts: int

    def call(self, inputs: Tensor) -> Tensor:
        return _activated(inputs, self)


class _Dropout(keras.layers.Dropout):  # type: ignore[misc]
    """Draws the masks of each part by its number in the global batch."""

    parts: int

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or not self.rate:
            return inputs
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * self.parts

        def dropped(number: int, part: Tensor) -> Tensor:
            own = tf.random.experimental.stateless_fold_in(seed, first + number)
            sizes, given = tf.unstack(tf.shape(part)), self.noise_shape or (None,) * part.shape.rank
            shape = [size if fixed is None else fixed for size, fixed in zip(sizes, given, strict=True)]
            return tf.nn.experimental.stateless_dropout(part, self.rate, own, rng_alg="philox", noise_shape=shape)

        return tf.concat([dropped(*each) for each in enumerate(tf.split(inputs, self.parts))], axis=0)


_IN_PARTS: dict[type[Any], type[Any]] = {
    keras.layers.Conv2D: _Conv2D,
    keras.layers.DepthwiseConv2D: _DepthwiseConv2D,
    keras.layers.Dense: _Dense,
    keras.layers.Activation: _Activation,
    keras.layers.Dropout: _Dropout,
}

_BY_THE_IMAGE = (keras.activations.linear, keras.activations.relu, keras.activations.relu6)


def _outputs(layer: Any, inputs: Tensor, operation: Operation, part_by_part: bool = False) -> Tensor:
    """Return what a layer's kernel, bias and activation make of float [batch, ..., channels]."""
    outputs = _summing(operation, inputs, layer.kernel, layer.parts, part_by_part)
    if layer.use_bias:
        outputs = _summing(tf.add, outputs, layer.bias, layer.parts)
    return _activated(outputs, layer)


def _activated(x: Tensor, layer: Any) -> Tensor:
    activation = layer.activation or keras.activations.linear
    return activation(x) if activation in _BY_THE_IMAGE else _part_by_part(activation, x, layer.parts)


def _part_by_part(function: Callable[[Tensor], Tensor], x: Tensor, parts: int) -> Tensor:
    return tf.concat([function(part) for part in tf.split(x, parts)], axis=0)


def _summing(operation: Operation, x: Tensor, weight: Tensor, parts: int, part_by_part: bool = False) -> Tensor:
    """Return `operation(x, weight)`, a product or a sum, with its gradient by the weight summed in parts.

    Args:
        operation: What is done.
        x: float [batch, ...].
        weight: The weight, of the same precision.
        parts: Of the batch.
        part_by_part: The value, and its gradient by x, are computed for each part by itself too.
    """

    def applied(x: Tensor, weight: Tensor) -> Tensor:
        return _part_by_part(lambda part: operation(part, weight), x, parts) if part_by_part else operation(x, weight)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def summing(x: Tensor, weight: Tensor) -> tuple[Tensor, Any]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            # Gradients of products and sums do not need the value, so that TensorFlow does not compute it anew.
            of_x, _ = _gradients(applied, x, weight, upstream)
            of_parts = [
                _gradients(operation, part, weight, of_part)[1]
                for part, of_part in zip(tf.split(x, parts), tf.split(upstream, parts), strict=True)
            ]
            return of_x, tf.add_n([tf.cast(of_weight, tf.float64) for of_weight in of_parts])

        return applied(x, weight), gradient

    return summing(x, tf.convert_to_tensor(weight))


def _gradients(operation: Operation, x: Tensor, weight: Tensor, upstream: Tensor) -> list[Tensor]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, weight])
        y = operation(x, weight)
    gradients: list[Tensor] = tape.gradient(y, [x, weight], upstream)
    return gradients
