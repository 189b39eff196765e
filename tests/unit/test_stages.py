"""Stages and their optimisers: what trains when, how fast, and what is left alone."""

from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest

from dermaray.config import TrainingConfig
from dermaray.images.spec import InputSpec
from dermaray.models.classifier import HEAD, build_classifier
from dermaray.models.spec import ModelConfig
from dermaray.training.compile import compile_stage
from dermaray.training.losses import SmoothedCrossEntropy
from dermaray.training.optimizer import build_optimizer
from dermaray.training.stages import Stage, stages


def model_of() -> keras.Model:
    options = {"filters": [4], "dense": 4, "batch_normalization": True}
    return build_classifier(ModelConfig(options=options), InputSpec(height=16, width=16), 3)


def rates_of(steps: int, **training: Any) -> list[float]:
    optimizer = build_optimizer(TrainingConfig(**training), 1.0, steps)
    rates = []
    for step in range(steps):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    return rates


def test_a_run_without_a_head_of_its_own_has_one_stage() -> None:
    assert stages(TrainingConfig(epochs=3, learning_rate=0.1), 10) == [Stage(0, 30, False, 0.1, 0, 30)]


def test_the_head_trains_first() -> None:
    training = TrainingConfig(epochs=3, head_epochs=1, learning_rate=0.1, head_learning_rate=0.5)
    assert stages(training, 10) == [Stage(0, 10, True, 0.5, 0, 10), Stage(10, 30, False, 0.1, 10, 30)]
    model = model_of()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(4) % 3
    for stage, moving in ((stages(training, 10)[0], {HEAD}), (stages(training, 10)[1], {HEAD, "conv1", "norm1"})):
        compile_stage(model, training, stage, jit_compile=False)
        before = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
        model.train_on_batch(pixels, labels)
        moved = {
            name
            for name, weights in before.items()
            if any(not np.array_equal(a, b) for a, b in zip(weights, model.get_layer(name).get_weights(), strict=True))
        }
        assert moved & {HEAD, "conv1", "norm1"} == moving


def test_small_images_come_first_and_the_optimiser_goes_on() -> None:
    training = TrainingConfig(epochs=4, head_epochs=1, small_epochs=3, small_scale=0.5, learning_rate=0.1)
    assert stages(training, 10) == [
        Stage(0, 10, True, 0.1, 0, 10, 0.5),
        Stage(10, 30, False, 0.1, 10, 40, 0.5),
        Stage(30, 40, False, 0.1, 10, 40),
    ]
    assert stages(TrainingConfig(epochs=2, small_epochs=1, small_scale=0.5, learning_rate=0.1), 10) == [
        Stage(0, 10, False, 0.1, 0, 20, 0.5),
        Stage(10, 20, False, 0.1, 0, 20),
    ]


@pytest.mark.parametrize("training", [{"small_epochs": 3}, {"small_epochs": 1, "head_epochs": 1}, {"small_scale": 0.5}])
def test_small_images_that_cannot_be_are_refused(training: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="small_"):
        TrainingConfig(epochs=3, **training)


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = rates_of(20, schedule="cosine", warmup_steps=4)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a > b for a, b in pairwise(rates[4:]))
    # Half a cosine wave: half of the rate after half of the steps.
    assert rates[12] == pytest.approx(0.5)
    assert rates[-1] < 0.02
    assert rates_of(20, warmup_steps=4) == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 16)
    assert rates_of(20) == [1.0] * 20
    assert rates_of(3, warmup_steps=10) == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_biases_and_normalisations_do_not_decay() -> None:
    model = model_of()
    training = TrainingConfig(optimizer="adamw", weight_decay=0.5)
    model.compile(build_optimizer(training, 0.1, 10))
    model.optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    model.optimizer.apply([np.zeros(variable.shape, np.float32) for variable in model.trainable_variables])
    for variable in model.trainable_variables:
        expected = 1 - 0.5 * 0.1 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(variable, expected, err_msg=variable.path)


def test_gradients_are_cut_by_their_common_norm() -> None:
    variables = [keras.Variable([0.0, 0.0]), keras.Variable([0.0])]
    optimizer = build_optimizer(TrainingConfig(optimizer="sgd", clip_norm=1.0), 1.0, 10)
    optimizer.build(variables)
    optimizer.apply([np.array([3.0, 0.0], np.float32), np.array([4.0], np.float32)])
    np.testing.assert_allclose(variables[0], [-0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(variables[1], [-0.8], rtol=1e-6)


def test_labels_are_smoothed() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    losses = np.asarray(SmoothedCrossEntropy(0.3).call(np.array([0, 2]), p))
    smooth = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(losses, -(smooth * np.log(p)).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_takes_every_setting(optimizer: str) -> None:
    training = TrainingConfig(optimizer=optimizer, clip_norm=1.0, ema=0.9, schedule="cosine", warmup_steps=2)
    model = model_of()
    compile_stage(model, training, Stage(0, 10, False, 0.1, 0, 10), jit_compile=False)
    model.train_on_batch(np.zeros((4, 16, 16, 3), np.uint8), np.arange(4) % 3)
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
