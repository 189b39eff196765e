"""Gradients whose sums over images and workers go in float64, so that how a batch is cut does not show in any weight.

The gradient of a weight is a sum over the images of a batch. In float32 its last digit depends on the order, and so on
which worker has which images; now and then such a digit moves an activation over the kink of a ReLU, and training
magnifies what comes of that. Summed in float64 and rounded once, after the workers' sums are added up, it is the same
for one worker and for many. What an image alone decides, its activations and their gradients, stays in float32.
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
                f"training.exact_sums=true knows the layers {', '.join(kind.__name__ for kind in _EXACT)} and "
                f"BatchNormalization. Received: a backbone with a {type(layer).__name__} ({layer.name})"
            )


class _Exact:
    """A mixin for layers that apply a kernel, a bias and an activation to float [batch, ..., channels]."""

    exact: ClassVar[bool] = True
    kernel: Any
    bias: Any
    use_bias: bool
    activation: Any

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return what the layer returns otherwise too, in training and out of it."""
        outputs = _summing(self._apply, inputs, self.kernel)
        if self.use_bias:
            outputs = _summing(tf.add, outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

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
    def _apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return keras.ops.matmul(inputs, kernel)


_EXACT: dict[type[Any], type[Any]] = {
    keras.layers.Conv2D: _Conv2D,
    keras.layers.DepthwiseConv2D: _DepthwiseConv2D,
    keras.layers.Dense: _Dense,
}


def _summing(operation: Operation, x: Tensor, weight: Tensor) -> Tensor:
    """Return `operation(x, weight)`, linear in both, with its gradient by the weight computed in float64."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def summing(x: Tensor, weight: Tensor) -> tuple[Tensor, Any]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            # A linear operation's gradient does not need its value, so that of what is written here again TensorFlow
            # computes the gradients alone.
            of_x, _ = _gradients(operation, x, weight, upstream)
            _, of_weight = _gradients(operation, *(tf.cast(each, tf.float64) for each in (x, weight, upstream)))
            return of_x, of_weight

        return operation(x, weight), gradient

    return summing(x, tf.convert_to_tensor(weight))


def _gradients(operation: Operation, x: Tensor, weight: Tensor, upstream: Tensor) -> list[Tensor]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, weight])
        y = operation(x, weight)
    gradients: list[Tensor] = tape.gradient(y, [x, weight], upstream)
    return gradients
