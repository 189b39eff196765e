"""The predictor: what an engine gives becomes named answers, and no image is no problem."""

from pathlib import Path

import numpy as np
import pytest

from dermaray.errors import ArtifactError
from dermaray.images.spec import InputSpec
from dermaray.labels import LABEL_SETS
from dermaray.models.artifact import Artifact
from dermaray.models.predictor import Predictor

LABELS = LABEL_SETS["isic2018"]
SPEC = InputSpec(height=16, width=16)


def predictor_of(decisions_of, engine):
    decisions = decisions_of(LABELS)
    return Predictor(Artifact(Path("model"), "some-model", "1", SPEC, LABELS, decisions, {}, "0" * 64, {}), engine)


def answering(row):
    """An engine that says the same of every image, and takes no empty batch, as TensorFlow with some networks."""

    def engine(pixels):
        assert len(pixels)
        return np.tile(np.float32(row), (len(pixels), 1)), np.zeros((len(pixels), 5), np.float32)

    return engine


def test_what_an_engine_says_is_named(decisions_of):
    row = np.full(7, 0.02)
    row[0] = 0.88
    predictor = predictor_of(decisions_of, answering(row))
    (one, other) = predictor.named(predictor.decide([predictor.blank()] * 2))
    assert one == other
    assert one.label == "MEL"
    assert one.alert is True
    assert one.melanoma_probability == one.probabilities["MEL"]
    assert "MEL" in one.prediction_set
    assert sum(one.probabilities.values()) == pytest.approx(1)


def test_no_image_gets_no_answer(decisions_of):
    predictor = predictor_of(decisions_of, answering(np.full(7, 1 / 7)))
    decided = predictor.decide([])
    assert decided.probabilities.shape == (0, 7)
    assert predictor.named(decided) == []


def test_a_network_that_has_diverged_is_named(decisions_of):
    with pytest.raises(ArtifactError, match="its training has diverged"):
        predictor_of(decisions_of, answering(np.full(7, np.nan))).decide([np.zeros((16, 16, 3), np.uint8)])
