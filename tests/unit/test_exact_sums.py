"""Gradients summed in float64: the layers' own, the same to the bit however a batch is cut, rounded once."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dermaray.config import TrainingConfig
from dermaray.errors import ConfigError
from dermaray.training.compile import compile_stage
from dermaray.training.exact_sums import sum_exactly
from dermaray.training.multiworker import MultiWorkerModel
from dermaray.training.normalization import normalize_together
from dermaray.training.stages import Stage

ROWS, SHAPE, CLASSES = 24, (13, 11, 3), 3
LAYERS: dict[str, Callable[[str], keras.Layer]] = {
    "convolution": lambda dtype: keras.layers.Conv2D(
        4, 3, strides=2, padding="same", activation="relu", bias_initializer="random_normal", dtype=dtype
    ),
    "without a bias": lambda dtype: keras.layers.Conv2D(4, (3, 2), dilation_rate=2, use_bias=False, dtype=dtype),
    "depthwise": lambda dtype: keras.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, dtype=dtype),
    "dense": lambda dtype: keras.layers.Dense(5, activation="sigmoid", dtype=dtype),
}


def network(exact: bool) -> keras.Model:
    keras.utils.set_random_seed(3)
    pixels = keras.Input(SHAPE)
    x = keras.layers.Conv2D(8, 3, activation="relu")(pixels)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3)(x)
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Flatten()(x))
    model = MultiWorkerModel(pixels, keras.layers.Dense(CLASSES, activation="softmax")(x))
    normalize_together(model, exact)
    if exact:
        sum_exactly(model)
    return model


def gradients_of(model: keras.Model, x: tf.Tensor) -> list[tf.Tensor]:
    """Return the output, its gradient by the input and those by all weights."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x, training=True)
        loss = tf.reduce_sum(y * y)
    return [y, *tape.gradient(loss, [x, *(weight.value for weight in model.trainable_variables)])]


@pytest.mark.parametrize("kind", LAYERS)
def test_the_gradients_are_the_layers_own(kind: str) -> None:
    x, results = tf.constant(np.random.default_rng(0).normal(size=(ROWS, *SHAPE)), "float64"), []
    for exact in (False, True):
        keras.utils.set_random_seed(0)
        inputs = keras.Input(SHAPE, dtype="float64")
        model = keras.Model(inputs, LAYERS[kind]("float64")(inputs))
        if exact:
            sum_exactly(model)
        results.append(gradients_of(model, x))
    for own, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, own, rtol=1e-12, atol=1e-12)


def test_weights_have_float64_gradients_and_images_keep_their_own() -> None:
    y, of_x, *of_weights = gradients_of(network(exact=True), tf.random.normal((ROWS, *SHAPE)))
    assert (y.dtype, of_x.dtype) == (tf.float32, tf.float32)
    assert {gradient.dtype for gradient in of_weights} == {tf.float64}


def trained(exact: bool, order: np.ndarray, **training: Any) -> list[np.ndarray]:
    """Take ten steps over batches whose rows stand in an order, and return all weights."""
    model, rng = network(exact), np.random.default_rng(1)
    compile_stage(model, TrainingConfig(**training), Stage(0, 10, False, 0.01), jit_compile=False)
    x = rng.normal(size=(10, ROWS, *SHAPE)).astype("f4")[:, order]
    y = rng.integers(0, CLASSES, (10, ROWS)).astype("i4")[:, order]
    weights = rng.uniform(0.5, 2, (10, ROWS)).astype("f4")[:, order]
    model.fit(tf.data.Dataset.from_tensor_slices((x, y, weights)).repeat(), steps_per_epoch=10, verbose=0)
    return [np.asarray(weight) for weight in model.get_weights()]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_order_of_a_batch_does_not_show_in_any_weight(optimizer: str) -> None:
    settings = {"optimizer": optimizer, "clip_norm": 0.5}
    orders = (np.arange(ROWS), np.random.default_rng(2).permutation(ROWS))
    for one, other in zip(*(trained(True, order, **settings) for order in orders), strict=True):
        np.testing.assert_array_equal(one, other)
    # And would, were the sums those of TensorFlow.
    pairs = zip(*(trained(False, order, **settings) for order in orders), strict=True)
    assert any((one != other).any() for one, other in pairs)


def test_a_layer_whose_sums_are_unknown_is_refused() -> None:
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.LayerNormalization()(inputs))
    with pytest.raises(ConfigError, match="LayerNormalization"):
        sum_exactly(model)
