"""Ensembles: the mean of their members over views, as one graph that any Keras reads back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest

from dermaray.decisions.decisions import Decisions
from dermaray.errors import ConfigError
from dermaray.images.spec import InputSpec
from dermaray.labels import LabelSet
from dermaray.models.artifact import SEEN_SCHEMA, Artifact
from dermaray.models.classifier import build_classifier, with_features
from dermaray.models.engine import KerasEngine
from dermaray.models.ensemble import combine
from dermaray.models.explain import GradCam
from dermaray.models.spec import ModelConfig, check_views
from dermaray.models.weights import set_weights
from dermaray.training.ensembles import EnsembleConfig, _once, ensemble_config

SPEC = InputSpec(height=32, width=32)


def member(seed):
    keras.utils.set_random_seed(seed)
    return build_classifier(ModelConfig(options={"filters": [4, 4], "dense": 6}), SPEC, 3)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, *SPEC.shape)).astype(np.uint8)


def test_an_ensemble_knows_an_image_by_all_of_its_names():
    rows = [{"sha256": "a", "lesion_id": lesion} for lesion in ("L1", "L2")]
    one, other = (pa.Table.from_pylist(part, SEEN_SCHEMA) for part in (rows, [rows[0], {"sha256": "a"}]))
    assert _once([one, other])["lesion_id"].to_pylist() == ["L1", "L2", None]


def test_weights_reach_what_a_layer_has_made_of_them():
    def normalising():
        image = keras.Input(SPEC.shape, dtype="uint8")
        mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Normalization()(image))
        return combine([keras.Model(image, keras.layers.Dense(3, "softmax")(mean))], 1)

    trained, plain = normalising(), normalising()
    values = [np.full_like(weight, 1 + number) for number, weight in enumerate(trained.get_weights())]
    set_weights(trained, values)
    normalization = trained.layers[1]
    assert np.array_equal(normalization.mean, np.reshape(normalization.adapt_mean, (1, 1, 1, 3)))
    # Keras by itself leaves them.
    plain.set_weights(values)
    assert np.array_equal(plain.layers[1].mean, np.zeros((1, 1, 1, 3)))


def test_one_member_with_one_view_is_that_member():
    one = member(0)
    assert combine([one], 1) is one


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_the_answer_is_the_mean_over_members_and_views(views, pixels):
    members = [member(0), member(1)]
    turned = [pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1]]
    turned += [one.transpose(0, 2, 1, 3) for one in turned]
    outputs = [[with_features(m).predict(np.ascontiguousarray(t), verbose=0) for t in turned[:views]] for m in members]
    probabilities, features = KerasEngine(combine(members, views))(pixels)
    assert probabilities == pytest.approx(np.mean([p for of in outputs for p, _ in of], axis=0), abs=1e-6)
    expected = np.concatenate([np.mean([f for _, f in of], axis=0) for of in outputs], axis=1)
    assert features == pytest.approx(expected, abs=1e-4)


def test_eight_views_do_not_hang_on_how_the_camera_was_held(pixels):
    engine = KerasEngine(combine([member(0)], 8))
    for turned in (pixels[:, ::-1], np.rot90(pixels, axes=(1, 2)), pixels.transpose(0, 2, 1, 3)):
        assert engine(np.ascontiguousarray(turned))[0] == pytest.approx(engine(pixels)[0], abs=1e-6)


def test_an_ensemble_is_read_back_without_a_class_of_ours(pixels, tmp_path):
    ensemble = combine([member(0), member(1)], 4)
    ensemble.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    for a, b in zip(KerasEngine(loaded)(pixels), KerasEngine(ensemble)(pixels), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    heat = GradCam(loaded)(pixels, np.zeros(5, int))
    assert heat.shape == (5, 32, 32)
    assert heat.max() <= 1


def test_only_squares_can_be_turned():
    check_views(8, 64, 64)
    check_views(4, 48, 64)
    with pytest.raises(ConfigError, match=r"needs a square input. Received: 48x64"):
        check_views(8, 48, 64)


def test_a_single_model_keeps_what_is_not_changed(decisions_of: Callable[..., Decisions]) -> None:
    labels = LabelSet("custom", ("nevus", "melanoma"), frozenset({"melanoma"}), "melanoma")

    def artifact(config: dict[str, Any]) -> Artifact:
        provenance = {"config": config}
        return Artifact(Path("m"), "m", "1", SPEC, labels, decisions_of(labels), {}, "0" * 64, provenance)

    made = {"name": "m", "views": 4, "weights_as": "int8", "int8": True}
    made["decisions"] = {"calibration": "bias_corrected", "label": "balanced"}
    config = ensemble_config([artifact(made)], ["decisions.alert_sensitivity=0.95"])
    assert (config.name, config.views, config.weights_as, config.int8) == ("ensemble", 4, "int8", True)
    assert (config.decisions.label, config.decisions.alert_sensitivity) == ("balanced", 0.95)
    assert made["decisions"] == {"calibration": "bias_corrected", "label": "balanced"}
    assert ensemble_config([artifact(made)] * 2, []) == EnsembleConfig()
