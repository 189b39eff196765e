"""Batch normalisation: Keras's own, with all its digits, and the same to the bit in whatever order images stand."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dermaray.training.normalization import normalize_together

SHAPES = {"images": (6, 5, 4, 3), "features": (6, 3)}
WITHOUT: dict[str, dict[str, bool]] = {"all": {}, "no scale": {"scale": False}, "no shift": {"center": False}}


def model_of(shape: tuple[int, ...], dtype: str = "float32", **options: Any) -> keras.Model:
    inputs = keras.Input(shape[1:], dtype=dtype)
    layer = keras.layers.BatchNormalization(dtype=dtype, gamma_initializer="random_normal", **options)
    return keras.Model(inputs, layer(inputs))


def values_of(shape: tuple[int, ...], dtype: str = "float32") -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(2, 3, shape), dtype)


def trained(model: keras.Model, x: tf.Tensor) -> list[np.ndarray]:
    """Return the output in training, its gradients by the input and all weights, and the moving statistics after it."""
    towards = tf.cast(np.random.default_rng(1).normal(size=x.shape), x.dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x, training=True)
        loss = tf.reduce_sum(y * towards)
    gradients = tape.gradient(loss, [x, *(weight.value for weight in model.trainable_variables)])
    return [np.asarray(part) for part in (y, *gradients, *model.non_trainable_variables)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("options", WITHOUT.values(), ids=WITHOUT)
def test_it_is_kerass(shape: tuple[int, ...], options: dict[str, bool]) -> None:
    results = []
    for together in (False, True):
        keras.utils.set_random_seed(0)
        model = model_of(shape, "float64", **options)
        if together:
            normalize_together(model)
        results.append(trained(model, values_of(shape, "float64")))
    for keras_own, ours in zip(*results, strict=True):
        # Keras computes the moments of float64 in float64, and keeps epsilon and momentum in Python's floats.
        np.testing.assert_allclose(ours, keras_own, rtol=1e-9, atol=1e-12)


def test_at_rest_it_goes_by_the_moving_statistics() -> None:
    model = model_of(SHAPES["images"])
    normalize_together(model)
    x = values_of(SHAPES["images"])
    (layer,) = model.layers[1:]
    np.testing.assert_allclose(model(x, training=False), np.asarray(layer.gamma) * x / np.sqrt(1.001), rtol=1e-5)
    layer.trainable = False
    np.testing.assert_array_equal(model(x, training=True), model(x, training=False))


def test_the_order_of_images_does_not_show() -> None:
    model = model_of((64, 24, 24, 8))
    normalize_together(model, exact=True)
    x, order = values_of((64, 24, 24, 8)), np.random.default_rng(2).permutation(64)
    np.testing.assert_array_equal(model(tf.gather(x, order), training=True), tf.gather(model(x, training=True), order))


@pytest.mark.parametrize("options", WITHOUT.values(), ids=WITHOUT)
def test_the_kernel_of_a_worker_that_is_alone_does_the_same(options: dict[str, bool]) -> None:
    shape = SHAPES["images"]
    models = [model_of(shape, dtype, **options) for dtype in ("float32", "float64")]
    models[1].set_weights(models[0].get_weights())
    results = []
    for model, dtype in zip(models, ("float32", "float64"), strict=True):
        normalize_together(model)
        results.append(trained(model, values_of(shape, dtype)))
    for fused, written_out in zip(*results, strict=True):
        np.testing.assert_allclose(fused, written_out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exact", [False, True])
def test_it_keeps_its_digits(exact: bool) -> None:
    """A channel that varies by a thousandth about 1 has a variance of 1e-6, of which E(x^2) - E(x)^2 leaves nothing."""
    model = model_of((64, 4, 4, 1), momentum=0.0)
    normalize_together(model, exact)
    values = (1 + 0.001 * np.random.default_rng(0).normal(size=(64, 4, 4, 1))).astype("f4")
    model(values, training=True)
    mean, variance = (np.asarray(v)[0] for v in model.non_trainable_variables)
    np.testing.assert_allclose(mean, values.astype("f8").mean(), rtol=1e-6)
    np.testing.assert_allclose(variance, values.astype("f8").var(), rtol=1e-5)
