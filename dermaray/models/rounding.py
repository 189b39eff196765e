"""Weights rounded to fewer bits, for smaller files. What is computed with them is float32 as before."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dermaray.decisions.arrays import Float32Array
from dermaray.models.spec import WeightsAs

if TYPE_CHECKING:
    import keras

LARGEST = 127
"""What int8 holds at most, on both sides of zero."""

_NOTHING = 1e-30
"""A channel whose largest weight is no more is rounded to zeros: float32 has no steps for it that are exact."""


def round_weights(model: "keras.Model", to: WeightsAs) -> None:
    """Round a model's weights, in place.

    They stay float32, but compress: to a half as float16, to a third as int8. With int8 all else than the kernels of
    layers that sum over channels is rounded to float16: there is little of it, and an error in it tells more.

    Args:
        model: Any.
        to: See `RunConfig.weights_as`.
    """
    from dermaray.models.weights import set_weights

    if to == "float32":
        return
    weights = model.get_weights()
    set_weights(model, [_int8(one) if to == "int8" and _sums_over_channels(one) else _float16(one) for one in weights])


def _sums_over_channels(weights: npt.NDArray[Any]) -> bool:
    """Tell kernels [..., channels] from depthwise ones, biases and the like.

    A depthwise one is [height, width, channels, 1], or that of a convolution with as many groups [height, width, 1,
    channels].
    """
    return weights.ndim > 1 and not (weights.ndim == 4 and 1 in weights.shape[-2:])


def _float16(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return weights.astype(np.float16).astype(weights.dtype)


def _int8(kernel: Float32Array) -> Float32Array:
    """Round a kernel [..., channels] to at most 127 steps of each channel."""
    largest = np.abs(kernel).max(tuple(range(kernel.ndim - 1)))
    step = _step(largest)
    # Of the largest as it is then: what has been rounded stays as it is when it is rounded again.
    step = _step(np.rint(largest / step) * step)
    rounded: Float32Array = np.rint(kernel / step) * step
    return rounded


def _step(largest: Float32Array) -> Float32Array:
    """Return the least step of which 127 reach the largest weight of a channel.

    It is a power of two times 4, 5, 6 or 7, so that what is rounded has few digits: else it would not compress.
    """
    fraction, exponent = np.frexp(np.where(largest > _NOTHING, largest, 1) / LARGEST)
    step: Float32Array = np.ldexp(np.ceil(fraction * 8) / 8, exponent).astype(np.float32)
    return step
