"""Gradients whose sums over images and workers go in float64, so that how a batch is cut does not show in any weight.

The gradient of a weight is a sum over the images of a batch. In float32 its last digit depends on the order, and so on
which worker has which images; now and then such a digit moves an activation over the kink of a ReLU, and training
magnifies what comes of that. Summed in float64 and rounded once, after the workers' sums are added up, it is the same
for one worker and for many.

What an image alone decides, its activations and their gradients, stays in float32 where kernels compute it image by
image. Two do not, and go in float64 to be rounded: a product of matrices takes another order for another number of rows
(oneDNN's, by a transposed weight), and exp and log have one code for whole vectors and another for what is left over at
a tensor's end (Eigen's).
"""

from collections.abc import Callable
from typing import Any, ClassVar

import keras
import tensorflow as tf

from dermaray.errors import ConfigError

Tensor = Any
Operation = Callable[[Tensor, Tensor], Tensor]


def sum_exactly(model: keras.Model) -> None:
    """Let the layers of a functional model give float64 gradients of their weights; an optimiser rounds them.

    Raises:
        ConfigError: A layer has weights to train and is none of those known here.
    """
    for layer in model.layers:
        if exact := _EXACT.get(type(layer)):
            # `keras.applications` builds these layers itself, and takes no other class.
            layer.__class__ = exact
        elif layer.trainable_weights and not getattr(layer, "exact", False):
            raise ConfigError(
                "training.exact_sums=true knows Conv2D, DepthwiseConv2D, Dense and BatchNormalization. "
                f"Received: a backbone with a {type(layer).__name__} ({layer.name})"
            )


class _Exact:
    """A mixin for layers that apply a kernel, a bias and an activation to float [batch, ..., channels]."""

    exact: ClassVar[bool] = True
    in_float64: ClassVar[bool] = False
    kernel: Any
    bias: Any
    use_bias: bool
    activation: Any

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return what the layer returns otherwise too, in training and out of it."""
        outputs = _summing(self._apply, tf.cast(inputs, tf.float64) if self.in_float64 else inputs, self.kernel)
        if self.use_bias:
            outputs = _summing(tf.add, outputs, self.bias)
        return tf.cast(_activated(outputs, self.activation), inputs.dtype)

    def _apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        raise NotImplementedError


class _Conv2D(_Exact, keras.layers.Conv2D):  # type: ignore[misc]
    def _apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return self.convolution_op(inputs, kernel)


class _DepthwiseConv2D(_Exact, keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    def _apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        options = {"padding": self.padding, "dilation_rate": self.dilation_rate, "data_format": self.data_format}
        return keras.ops.depthwise_conv(inputs, kernel, strides=self.strides, **options)


class _Dense(_Exact, keras.layers.Dense):  # type: ignore[misc]
    in_float64 = True

    def _apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return keras.ops.matmul(inputs, kernel)


class _Activation(keras.layers.Activation):  # type: ignore[misc]
    def call(self, inputs: Tensor) -> Tensor:
        return _activated(inputs, self.activation)


_EXACT: dict[type[Any], type[Any]] = {
    keras.layers.Conv2D: _Conv2D,
    keras.layers.DepthwiseConv2D: _DepthwiseConv2D,
    keras.layers.Dense: _Dense,
    keras.layers.Activation: _Activation,
}

_PIECEWISE_LINEAR = (keras.activations.linear, keras.activations.relu, keras.activations.relu6)


def _activated(x: Tensor, activation: Any) -> Tensor:
    if activation is None:
        return x
    if activation in _PIECEWISE_LINEAR:
        return activation(x)
    return tf.cast(activation(tf.cast(x, tf.float64)), x.dtype)


def _summing(operation: Operation, x: Tensor, weight: Tensor) -> Tensor:
    """Return `operation(x, weight)`, a product or a sum, with its gradient by the weight computed in float64."""

    def applied(x: Tensor, weight: Tensor) -> Tensor:
        return operation(x, tf.cast(weight, x.dtype))

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def summing(x: Tensor, weight: Tensor) -> tuple[Tensor, Any]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            # Gradients of products and sums do not need the value, so that TensorFlow does not compute it anew.
            of_x, _ = _gradients(applied, x, weight, upstream)
            _, of_weight = _gradients(applied, *(tf.cast(each, tf.float64) for each in (x, weight, upstream)))
            return of_x, of_weight

        return applied(x, weight), gradient

    return summing(x, tf.convert_to_tensor(weight))


def _gradients(operation: Operation, x: Tensor, weight: Tensor, upstream: Tensor) -> list[Tensor]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, weight])
        y = operation(x, weight)
    gradients: list[Tensor] = tape.gradient(y, [x, weight], upstream)
    return gradients
