"""Gradients summed in parts: the layers' own, and the same to the bit whoever has which parts."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dermaray.config import TrainingConfig
from dermaray.errors import ConfigError
from dermaray.training.compile import compile_stage
from dermaray.training.multiworker import MultiWorkerModel
from dermaray.training.normalization import normalize_together
from dermaray.training.partial_sums import compute_in_parts
from dermaray.training.stages import Stage

ROWS, PARTS, SHAPE, CLASSES = 24, 6, (13, 11, 3), 3
LAYERS: dict[str, Callable[[str], keras.Layer]] = {
    "convolution": lambda dtype: keras.layers.Conv2D(
        4, 3, strides=2, padding="same", activation="relu", bias_initializer="random_normal", dtype=dtype
    ),
    "without a bias": lambda dtype: keras.layers.Conv2D(4, (3, 2), dilation_rate=2, use_bias=False, dtype=dtype),
    "depthwise": lambda dtype: keras.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, dtype=dtype),
    "by the pixel": lambda dtype: keras.layers.Conv2D(64, 1, activation="silu", dtype=dtype),
    "classes": lambda dtype: keras.layers.Dense(9, activation="softmax", dtype=dtype),
    "dense": lambda dtype: keras.layers.Dense(5, activation="sigmoid", dtype=dtype),
}


def layer_of(kind: str, dtype: str, parts: int | None) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE, dtype=dtype)
    model = keras.Model(inputs, LAYERS[kind](dtype)(inputs))
    if parts:
        compute_in_parts(model, parts)
    return model


def network(parts: int | None) -> keras.Model:
    keras.utils.set_random_seed(3)
    pixels = keras.Input(SHAPE)
    x = keras.layers.Conv2D(8, 3, activation="relu")(pixels)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3)(x)
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Flatten()(x))
    model = MultiWorkerModel(pixels, keras.layers.Dense(CLASSES, activation="softmax")(x))
    normalize_together(model, exact=parts is not None)
    if parts:
        compute_in_parts(model, parts)
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
    x = tf.constant(np.random.default_rng(0).normal(size=(ROWS, *SHAPE)), "float64")
    results = [gradients_of(layer_of(kind, "float64", parts), x) for parts in (None, PARTS)]
    for own, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, own, rtol=1e-12, atol=1e-12)


def test_weights_have_float64_gradients_and_images_keep_their_own() -> None:
    y, of_x, *of_weights = gradients_of(network(PARTS), tf.random.normal((ROWS, *SHAPE)))
    assert (y.dtype, of_x.dtype) == (tf.float32, tf.float32)
    assert {gradient.dtype for gradient in of_weights} == {tf.float64}


@pytest.mark.parametrize("workers", [2, 3, PARTS])
@pytest.mark.parametrize("kind", LAYERS)
def test_workers_sum_what_one_does(kind: str, workers: int) -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(ROWS, *SHAPE)), "float32")
    whole, of_x, *of_weights = gradients_of(layer_of(kind, "float32", PARTS), x)
    alone = [gradients_of(layer_of(kind, "float32", PARTS // workers), own) for own in tf.split(x, workers)]
    outputs, of_own, *of_own_weights = zip(*alone, strict=True)
    for one, many in ((whole, outputs), (of_x, of_own)):
        np.testing.assert_array_equal(one, tf.concat(many, axis=0))
    for one, parts in zip(of_weights, of_own_weights, strict=True):
        np.testing.assert_array_equal(tf.cast(one, tf.float32), tf.cast(tf.add_n(parts), tf.float32))


def trained(parts: int | None, order: np.ndarray, **training: Any) -> list[np.ndarray]:
    """Take ten steps over batches whose parts stand in an order, and return all weights."""
    model, rng = network(parts), np.random.default_rng(1)
    compile_stage(model, TrainingConfig(**training), Stage(0, 10, False, 0.01, 0, 10), jit_compile=False)
    rows = np.arange(ROWS).reshape(PARTS, -1)[order].ravel()
    x = rng.normal(size=(10, ROWS, *SHAPE)).astype("f4")[:, rows]
    y = rng.integers(0, CLASSES, (10, ROWS)).astype("i4")[:, rows]
    weights = rng.uniform(0.5, 2, (10, ROWS)).astype("f4")[:, rows]
    model.fit(tf.data.Dataset.from_tensor_slices((x, y, weights)).repeat(), steps_per_epoch=10, verbose=0)
    return [np.asarray(weight) for weight in model.get_weights()]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_order_of_parts_does_not_show_in_any_weight(optimizer: str) -> None:
    settings = {"optimizer": optimizer, "clip_norm": 0.5}
    orders = (np.arange(PARTS), np.random.default_rng(2).permutation(PARTS))
    for one, other in zip(*(trained(PARTS, order, **settings) for order in orders), strict=True):
        np.testing.assert_array_equal(one, other)
    # And would, were the sums those of TensorFlow.
    pairs = zip(*(trained(None, order, **settings) for order in orders), strict=True)
    assert any((one != other).any() for one, other in pairs)


def test_dropout_draws_a_mask_for_each_part_and_the_same_again() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((7, 5))
    model = keras.Model(inputs, keras.layers.Dropout(0.3, noise_shape=(None, 1, 5), seed=1)(inputs))
    compute_in_parts(model, PARTS)
    x, generator = tf.ones((ROWS, 7, 5)), model.layers[-1].seed_generator
    begun = np.asarray(generator.state)
    first, second = np.asarray(model(x, training=True)), np.asarray(model(x, training=True))
    generator.state.assign(begun)
    np.testing.assert_array_equal(model(x, training=True), first)
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.7], rtol=1e-6)
    assert (first == first[:, :1]).all(), "one mask for all of the noise shape's 1"
    parts = [part.tobytes() for part in np.split(first, PARTS)]
    assert len(set(parts)) == PARTS
    assert (first != second).any()
    assert (first == 0).mean() == pytest.approx(0.3, abs=0.15)
    np.testing.assert_array_equal(model(x, training=False), x)


def test_a_layer_whose_sums_are_unknown_is_refused() -> None:
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.LayerNormalization()(inputs))
    with pytest.raises(ConfigError, match="LayerNormalization"):
        compute_in_parts(model, PARTS)
