"""Weights rounded to int8: whole steps of each channel, as many as int8 holds."""

import numpy as np
import pytest

from dermaray.models.rounding import _int8, _sums_over_channels

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(3, 3, 8, 5), (16, 7), (16, 1)])
def test_a_weight_is_a_whole_number_of_its_channels_steps(shape):
    kernel = (RANDOM.normal(size=shape) * np.exp(RANDOM.normal(size=shape[-1]) * 3)).astype(np.float32)
    rounded = _int8(kernel)
    assert rounded.dtype == np.float32
    for channel in range(shape[-1]):
        before, after = kernel[..., channel], rounded[..., channel]
        # Of the numbers that a step may be, the least of which 127 reach the largest, as it is rounded.
        steps = np.multiply.outer([4, 5, 6, 7], 2.0 ** np.arange(-40, 10)).ravel()
        step = steps[127 * steps >= np.abs(after).max()].min()
        counts = after / step
        assert np.array_equal(counts, np.rint(counts))
        assert 101 <= np.abs(counts).max() <= 127
        assert np.abs(after - before).max() <= step / 2


def test_what_is_rounded_stays_as_it_is():
    # Among them largest weights that are rounded to less than what asked for their step.
    rounded = _int8(RANDOM.normal(size=(40, 3000)).astype(np.float32))
    assert np.array_equal(_int8(rounded), rounded)


@pytest.mark.parametrize("largest", [0, 1e-44])
def test_a_channel_of_nothing_is_rounded_to_zeros(largest):
    rounded = _int8(np.array([[0, 1], [largest, -1]], np.float32))
    assert np.array_equal(rounded != 0, [[False, True], [False, True]])


@pytest.mark.parametrize(
    ("shape", "does"),
    [((3, 3, 8, 5), True), ((16, 7), True), ((3, 3, 8, 1), False), ((7, 7, 1, 96), False), ((8,), False)],
)
def test_depthwise_kernels_and_biases_are_left_to_float16(shape, does):
    assert _sums_over_channels(np.zeros(shape)) == does
