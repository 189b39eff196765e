"""bfloat16: nearly LiteRT's answers, by processors that have instructions for it and where OpenVINO is."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from dermaray.errors import ArtifactError
from dermaray.images.spec import InputSpec
from dermaray.models.artifact import open_artifact
from dermaray.models.classifier import build_classifier
from dermaray.models.engines import choose_engine
from dermaray.models.ensemble import combine
from dermaray.models.litert import LiteRTEngine, to_litert
from dermaray.models.openvino import BFloat16Engine
from dermaray.models.spec import ModelConfig
from jobs.options import REFERENCE
from tests.processor import BFLOAT16

SPEC = InputSpec(height=64, width=64)

IMPORTED = """
import sys
from dermaray.models.openvino import import_openvino
import_openvino()
print(*sys.modules, sep="\\n")
"""

needs_bfloat16 = pytest.mark.skipif(not BFLOAT16, reason="this processor has no instructions for bfloat16")


def built(backbone):
    keras.utils.set_random_seed(0)
    return build_classifier(ModelConfig(backbone=backbone), SPEC, 5)


def converted(folder, model):
    file = folder / "model.tflite"
    file.write_bytes(to_litert(model))
    return file


@needs_bfloat16
@pytest.mark.parametrize(
    "model",
    [
        lambda: built("case_study_cnn"),
        lambda: built("efficientnet_lite0"),
        lambda: combine([built("case_study_cnn"), built("case_study_cnn")], 8),
    ],
    ids=["case_study_cnn", "efficientnet_lite0", "ensemble over views"],
)
def test_it_answers_nearly_as_litert_does(model, tmp_path):
    file = converted(tmp_path, model())
    engine, reference = BFloat16Engine(file), LiteRTEngine(file.read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (6, *SPEC.shape)).astype(np.uint8)
    probabilities, features = engine(pixels)
    expected, expected_features = reference(pixels)
    assert probabilities == pytest.approx(expected, abs=0.02)
    differ, largest = float(np.abs(features - expected_features).max()), float(np.abs(expected_features).max())
    # It is what was asked for, not float32.
    assert 1e-4 * largest < differ < 0.05 * largest
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    # An image's answer does not hang on those beside it.
    for start in range(len(pixels)):
        for whole, one in zip((probabilities, features), engine(pixels[start : start + 1]), strict=True):
            np.testing.assert_array_equal(one[0], whole[start])


@needs_bfloat16
def test_a_graph_that_it_cannot_read_is_one_error(tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"OpenVINO cannot read .*model\.tflite \(.+\), which --engine bfloat16"):
        BFloat16Engine(file)


@pytest.mark.skipif(BFLOAT16, reason="this processor has instructions for bfloat16")
def test_a_processor_that_cannot_is_one_error(tmp_path):
    with pytest.raises(ArtifactError, match="this processor has neither AVX512-BF16 nor AMX"):
        BFloat16Engine(tmp_path / "model.tflite")


def test_where_it_is_not_installed_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    reference = open_artifact(REFERENCE)
    for ask in (lambda: BFloat16Engine(tmp_path / "model.tflite"), lambda: choose_engine(reference, "bfloat16")):
        with pytest.raises(ArtifactError, match=r"pip install 'dermaray\[openvino\]'"):
            ask()


def test_it_reports_nothing_to_its_makers(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", IMPORTED], check=True, capture_output=True, text=True, cwd=Path.cwd())
    assert "openvino" in ran.stdout.splitlines()
    assert "openvino_telemetry" not in ran.stdout
    # Where it would keep by what name it reports.
    assert not list(tmp_path.iterdir())
