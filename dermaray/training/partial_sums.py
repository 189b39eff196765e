"""Steps computed in parts of a global batch that do not depend on the workers, so that neither do the weights.

The gradient of a weight is a sum over the images of a batch. In float32 its last digit depends on the order, and so on
which worker has which images; now and then such a digit moves an activation over the kink of a ReLU, and training
magnifies what comes of that. Here the batch is cut into as many parts for one worker as for many. What a kernel makes
of a part is the same wherever the part is, and the sum of a few float32 of like size loses nothing in float64; an
optimiser rounds it once, after the workers' sums are added up. So the weights are the same to the bit.

Not only gradients are computed by the part: products of matrices, convolutions, and exp, too, take another order or
other code for another number of rows. Dropout draws a mask for each part. Batch normalisation knows each image's sums;
see `normalization`. What else a network does, images do not share.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import keras
import tensorflow as tf

from dermaray.errors import ConfigError

Tensor = Any
Operation = Callable[[Tensor, Tensor], Tensor]


def compute_in_parts(model: keras.Model, parts: int) -> None:
    """Let the layers of a functional model compute part by part.

    They give float64 gradients of their weights, for an optimiser that rounds them.

    Args:
        model: The model; its batch normalisations are those of `normalize_together`.
        parts: How many this worker's rows of a batch are cut into; their number is a multiple of it.

    Raises:
        ConfigError: A layer trains weights, or draws, and is none of those known here.
    """
    for layer in model.layers:
        if kind := _IN_PARTS.get(type(layer)):
            # `keras.applications` builds these layers itself, and takes no other class.
            layer.__class__ = kind
            layer.parts = parts
        elif _shared_by_images(layer):
            raise ConfigError(
                "training.partial_sums knows Conv2D, DepthwiseConv2D, Dense, Dropout and BatchNormalization. "
                f"Received: a backbone with a {type(layer).__name__} ({layer.name})"
            )


def _shared_by_images(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.BatchNormalization):
        return False
    return bool(layer.trainable_weights) or hasattr(layer, "seed_generator")


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
        return _outputs(self, inputs, keras.ops.matmul)


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

_BY_THE_VALUE = (keras.activations.linear, keras.activations.relu, keras.activations.relu6)


def _outputs(layer: Any, inputs: Tensor, operation: Operation) -> Tensor:
    """Return what a layer's kernel, bias and activation make of float [batch, ..., channels]."""
    outputs = _summing(operation, inputs, layer.kernel, layer.parts)
    if layer.use_bias:
        outputs = _summing(tf.add, outputs, layer.bias, layer.parts)
    return _activated(outputs, layer)


def _activated(x: Tensor, layer: Any) -> Tensor:
    activation = layer.activation or keras.activations.linear
    if activation in _BY_THE_VALUE:
        return activation(x)
    outputs = _by_the_part(activation, x, layer.parts)
    if activation is keras.activations.softmax:
        # Keras's own mark, by which a loss is computed from logits.
        outputs._keras_logits = x
    return outputs


def _by_the_part(function: Callable[[Tensor], Tensor], x: Tensor, parts: int) -> Tensor:
    return tf.concat([function(part) for part in tf.split(x, parts)], axis=0)


def _summing(operation: Operation, x: Tensor, weight: Tensor, parts: int) -> Tensor:
    """Return `operation(x, weight)`, a product or a sum, by the part, with a float64 gradient by the weight.

    Args:
        operation: What is done.
        x: float [batch, ...].
        weight: The weight, of the same precision.
        parts: Of the batch.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def summing(x: Tensor, weight: Tensor) -> tuple[Tensor, Any]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            pairs = zip(tf.split(x, parts), tf.split(upstream, parts), strict=True)
            of_x, of_weight = zip(*(_gradients(operation, part, weight, above) for part, above in pairs), strict=True)
            return tf.concat(of_x, axis=0), reduce(tf.add, (tf.cast(each, tf.float64) for each in of_weight))

        return _by_the_part(lambda part: operation(part, weight), x, parts), gradient

    return summing(x, tf.convert_to_tensor(weight))


def _gradients(operation: Operation, x: Tensor, weight: Tensor, upstream: Tensor) -> list[Tensor]:
    # Gradients of products and sums do not need the value, so that TensorFlow does not compute it anew.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, weight])
        y = operation(x, weight)
    gradients: list[Tensor] = tape.gradient(y, [x, weight], upstream)
    return gradients
