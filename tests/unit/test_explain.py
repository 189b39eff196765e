"""Grad-CAM: it points at what a network has learnt to look for, and at something else once that is forgotten."""

import keras
import numpy as np
import pytest

from dermaray.images.spec import InputSpec
from dermaray.models.classifier import HEAD, build_classifier
from dermaray.models.explain import GradCam, overlay
from dermaray.models.spec import ModelConfig

SPEC = InputSpec(height=48, width=64)
PATCH = 14


def patched(images, seed):
    """Images of noise, of which every second has a bright patch somewhere, and where it is."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 120, (images, *SPEC.shape)).astype(np.uint8)
    tops, lefts = rng.integers(0, SPEC.height - PATCH, images), rng.integers(0, SPEC.width - PATCH, images)
    for i in range(0, images, 2):
        pixels[i, tops[i] : tops[i] + PATCH, lefts[i] : lefts[i] + PATCH] = 240
    return pixels, (np.arange(images) % 2 == 0).astype(int), tops, lefts


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    # Pooled over all places at the end, as most networks are.
    pixels = x = keras.Input(SPEC.shape, dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(x)
    for filters in (8, 16):
        x = keras.layers.MaxPooling2D()(keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(pixels, keras.layers.Dense(2, activation="softmax", name=HEAD)(x))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    pixels, labels, _, _ = patched(256, seed=0)
    model.fit(pixels, labels, batch_size=32, epochs=15, verbose=0)
    return model


def share_in_patch(model, pixels, tops, lefts):
    heat = GradCam(model)(pixels, np.ones(len(pixels), int))
    inside = [heat[i, t : t + PATCH, s : s + PATCH].sum() for i, (t, s) in enumerate(zip(tops, lefts, strict=True))]
    return np.array(inside) / np.maximum(heat.sum(axis=(1, 2)), 1e-9)


def test_it_points_at_what_was_learnt_and_not_with_random_weights(trained):
    pixels, labels, tops, lefts = (part[::2] for part in patched(40, seed=1))
    assert labels.all()
    assert np.median(trained.predict(pixels, verbose=0)[:, 1]) > 0.9
    assert np.median(share_in_patch(trained, pixels, tops, lefts)) > 0.4
    # By chance it would be 0.06, the share of the places that a patch takes; an untrained network sees edges as well.
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        forgotten = keras.models.clone_model(trained)
        assert np.median(share_in_patch(forgotten, pixels, tops, lefts)) < 0.25


@pytest.mark.parametrize("backbone", ["case_study_cnn", "efficientnet_lite0", "ConvNeXtTiny", "MobileNetV3Small"])
def test_every_kind_of_backbone_has_maps(backbone):
    keras.utils.set_random_seed(0)
    model = build_classifier(ModelConfig(backbone=backbone), SPEC, 3)
    pixels, *_ = patched(3, seed=2)
    heat = GradCam(model)(pixels, np.array([0, 1, 2]))
    assert heat.shape == (3, SPEC.height, SPEC.width)
    assert heat.dtype == np.float32
    assert set(np.round(heat.max(axis=(1, 2)), 6)) <= {0.0, 1.0}
    assert heat.max() == 1
    assert heat.min() >= 0


def test_an_answer_beyond_doubt_has_a_map_still(trained):
    pixels, *_ = patched(2, seed=3)
    *rest, kernel, bias = trained.get_weights()
    certain = keras.models.clone_model(trained)
    certain.set_weights([*rest, kernel * 200, bias])
    assert GradCam(certain)(pixels, np.array([1, 0])).max() == 1


def test_an_overlay_leaves_what_says_nothing_as_it_is():
    pixels, *_ = patched(1, seed=4)
    heat = np.zeros(SPEC.shape[:2], np.float32)
    heat[:10] = 1
    shown = overlay(pixels[0], heat)
    assert (shown[10:] == pixels[0][10:]).all()
    red, _, blue = shown[:10].mean(axis=(0, 1))
    assert red > blue
