"""What training lowers and what it reports: the loss has its weights and its gamma, accuracy counts rows."""

import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaray.config import TrainingConfig
from dermaray.training.compile import compile_stage
from dermaray.training.losses import FocalLoss, training_loss
from dermaray.training.multiworker import MultiWorkerModel
from dermaray.training.partial_sums import compute_in_parts
from dermaray.training.stages import Stage

ROWS, FEATURES, CLASSES = 8, 5, 3
LOSSES = ({"loss": "cross_entropy"}, {"loss": "focal", "focal_gamma": 1.5})


def data_of(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(ROWS, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, ROWS).astype(np.int32)
    return x, y, rng.uniform(0.2, 3, ROWS).astype(np.float32)


def trainable(**training: Any) -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((FEATURES,))
    model = MultiWorkerModel(inputs, keras.layers.Dense(CLASSES, activation="softmax")(inputs))
    compile_stage(
        model, TrainingConfig(optimizer="sgd", **training), Stage(0, 10, False, 0.1, 0, 10), jit_compile=False
    )
    return model


def endless(*batch: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors(batch).repeat()


def losses_of(p: np.ndarray, y: np.ndarray, gamma: float) -> np.ndarray:
    """Return the focal loss of every row, as Lin et al. 2017 write it, in float64."""
    right = p.astype(np.float64)[np.arange(len(y)), y]
    return -((1 - right) ** gamma) * np.log(right)


def gamma_of(training: dict[str, Any]) -> float:
    return float(training.get("focal_gamma", 0.0))


@settings(max_examples=80, deadline=None)
@given(
    logits=st.lists(st.lists(st.floats(-4, 4), min_size=4, max_size=4), min_size=1, max_size=6),
    gamma=st.floats(0, 5),
    seed=st.integers(0, 99),
)
def test_the_focal_loss_is_that_of_the_paper(logits: list[list[float]], gamma: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y, weight = rng.integers(0, 4, len(p)), rng.uniform(0.1, 3, len(p)).astype(np.float32)
    expected = losses_of(p, y, gamma)
    np.testing.assert_allclose(FocalLoss(gamma).call(y, p.astype(np.float32)), expected, rtol=1e-3, atol=1e-6)
    # Divided by the rows, not by their weights.
    total = float(FocalLoss(gamma)(y, p.astype(np.float32), sample_weight=weight))
    assert total == pytest.approx((weight * expected).sum() / len(p), rel=1e-3, abs=1e-6)


def test_the_focal_loss_without_gamma_is_the_cross_entropy() -> None:
    x, y, weight = data_of(0)
    p = tf.nn.softmax(x[:, :CLASSES])
    focal, plain = FocalLoss(0.0), training_loss(TrainingConfig())
    assert float(focal(y, p, weight)) == pytest.approx(float(plain(y, p, weight)), rel=1e-5)


def test_a_certain_answer_has_a_finite_loss_and_gradient() -> None:
    for gamma in (0.0, 0.5, 2.0):
        p = tf.constant([[1.0, 0.0], [0.0, 1.0]])
        with tf.GradientTape() as tape:
            tape.watch(p)
            loss = FocalLoss(gamma)(tf.constant([0, 0]), p)
        assert np.isfinite(loss)
        assert np.isfinite(tape.gradient(loss, p)).all()


def test_the_configuration_chooses_the_loss() -> None:
    assert isinstance(training_loss(TrainingConfig()), keras.losses.SparseCategoricalCrossentropy)
    focal = training_loss(TrainingConfig(loss="focal", focal_gamma=3.0))
    assert isinstance(focal, FocalLoss)
    assert focal.gamma == 3.0


@pytest.mark.parametrize("training", LOSSES)
def test_the_training_loss_is_weighted_and_the_accuracy_is_not(training: dict[str, Any]) -> None:
    model, (x, y, weight) = trainable(**training), data_of(1)
    p = model.predict(x, verbose=0)
    history = model.fit(endless(x, y, weight), steps_per_epoch=1, shuffle=False, verbose=0).history
    expected = (weight * losses_of(p, y, gamma_of(training))).mean()
    assert history["loss"] == [pytest.approx(expected, rel=1e-4)]
    right = p.argmax(axis=1) == y
    assert 0 < right.mean() < 1
    assert history["accuracy"] == [pytest.approx(right.mean())]
    assert np.average(right, weights=weight) != pytest.approx(right.mean(), abs=0.01)


@pytest.mark.parametrize("training", LOSSES)
def test_the_gradient_is_that_of_the_weighted_loss(training: dict[str, Any]) -> None:
    model, (x, y, weight) = trainable(**training), data_of(2)
    kernel, bias = (w.astype(np.float64) for w in model.get_weights())
    model.fit(endless(x, y, weight), steps_per_epoch=1, shuffle=False, verbose=0)

    def loss(at: np.ndarray) -> float:
        logits = np.exp(x @ kernel + at)
        return float((weight * losses_of(logits / logits.sum(axis=1, keepdims=True), y, gamma_of(training))).mean())

    steps = np.eye(CLASSES) * 1e-5
    gradient = [(loss(bias + step) - loss(bias - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(model.get_weights()[1], bias - 0.1 * np.array(gradient), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("parts", [None, 2])
@pytest.mark.parametrize("training", [{}, {"label_smoothing": 0.1}])
def test_a_certain_mistake_is_learnt_from(training: dict[str, Any], parts: int | None) -> None:
    """The probability of the right class is below float32's 1e-7, at which Keras would cut it: logits tell more."""
    model = trainable(**training)
    if parts:
        compute_in_parts(model, parts)
    kernel, bias = np.zeros((FEATURES, CLASSES)), np.array([30.0, 0.0, -3.0])
    model.set_weights([kernel, bias])
    x, y, weight = np.zeros((ROWS, FEATURES), "f4"), np.ones(ROWS, "i4"), np.ones(ROWS, "f4")
    assert model.evaluate(endless(x, y, weight), steps=1, verbose=0)[0] == pytest.approx(30, rel=1e-4)
    model.fit(endless(x, y, weight), steps_per_epoch=1, shuffle=False, verbose=0)
    moved = model.get_weights()[1] - bias
    assert moved[1] > 0.05 > 0 > moved[0]


@pytest.mark.parametrize("training", LOSSES)
def test_validation_is_the_plain_cross_entropy_of_the_rows_that_count(training: dict[str, Any]) -> None:
    model, (x, y, _) = trainable(**training), data_of(3)
    p = model.predict(x, verbose=0)
    weight = np.array([1] * 6 + [0] * 2, np.float32)
    figures = model.evaluate(endless(x, y, weight), steps=1, verbose=0, return_dict=True)
    assert figures["loss"] == pytest.approx(losses_of(p, y, 0.0)[:6].mean(), rel=1e-5)
    assert figures["accuracy"] == pytest.approx((p.argmax(axis=1) == y)[:6].mean())


TWO_REPLICAS = """
import numpy as np, tensorflow as tf
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.unit.test_losses import *

for training in LOSSES:
    x, y, weight = data_of(4)
    one = trainable(**training)
    figures = one.fit(endless(x, y, weight), steps_per_epoch=3, shuffle=False, verbose=0).history
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        two = trainable(**training)
    halves = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(ROWS // 2, drop_remainder=True).repeat()
    shards = strategy.distribute_datasets_from_function(lambda _: halves)
    others = two.fit(shards, steps_per_epoch=3, shuffle=False, verbose=0).history
    assert strategy.num_replicas_in_sync == 2
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(figures[name], others[name], rtol=1e-4)
print("as one")
"""


def test_two_replicas_learn_from_weighted_rows_what_one_does(pytestconfig: pytest.Config) -> None:
    # A process of its own: devices can be divided only before TensorFlow is in use.
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS], cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("as one")
