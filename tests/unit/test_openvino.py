"""bfloat16: LiteRT's answers to some hundredths, or one error that says what is missing."""

import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from dermaray.errors import ArtifactError
from dermaray.images.spec import InputSpec
from dermaray.models import openvino
from dermaray.models.artifact import open_artifact
from dermaray.models.classifier import build_classifier
from dermaray.models.engines import choose_engine
from dermaray.models.ensemble import combine
from dermaray.models.litert import LiteRTEngine, to_litert
from dermaray.models.openvino import BFloat16Engine
from dermaray.models.rounding import round_weights
from dermaray.models.spec import ModelConfig
from jobs.options import REFERENCE
from tests.processor import need_bfloat16

SPEC = InputSpec(height=64, width=64)
IMPORTED = """
import sys
from dermaray.models.openvino import import_openvino
import_openvino()
print(*sys.modules, sep="\\n")
"""

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


def test_an_engine_that_a_model_lacks_is_refused_with_the_reason():
    artifact = SimpleNamespace(path="m", files={}, provenance={})
    with pytest.raises(ArtifactError, match=r"m has no model\.int8\.tflite\. Train it with int8: true, or use another"):
        choose_engine(artifact, "int8")
    artifact.provenance["unconverted"] = {"model.int8.tflite": "no such operation"}
    with pytest.raises(ArtifactError, match=r"could not be converted: no such operation\. Use another --engine"):
        choose_engine(artifact, "int8")


def built(backbone):
    keras.utils.set_random_seed(0)
    return build_classifier(ModelConfig(backbone=backbone), SPEC, 5)


@pytest.mark.parametrize(
    ("build", "weights_as"),
    [
        (lambda: built("case_study_cnn"), "float16"),
        (lambda: built("efficientnet_lite0"), "float16"),
        (lambda: combine([built("case_study_cnn"), built("case_study_cnn")], 8), "float16"),
        (lambda: combine([built("efficientnet_lite0"), built("efficientnet_lite0")], 2), "int8"),
    ],
    ids=["case_study_cnn", "efficientnet_lite0", "ensemble over views", "ensemble of int8 weights"],
)
def test_it_answers_nearly_as_litert_does(build, weights_as, tmp_path):
    need_bfloat16()
    model = build()
    round_weights(model, weights_as)
    file = tmp_path / "model.tflite"
    file.write_bytes(to_litert(model, weights_as=weights_as))
    engine, reference = BFloat16Engine(file), LiteRTEngine(file.read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (6, *SPEC.shape)).astype(np.uint8)
    probabilities, features = engine(pixels)
    expected, expected_features = reference(pixels)
    assert probabilities == pytest.approx(expected, abs=0.05)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    differ, largest = float(np.abs(features - expected_features).max()), float(np.abs(expected_features).max())
    # It is what was asked for, not float32.
    assert 1e-4 * largest < differ < 0.05 * largest
    # In batches of any size.
    for start, stop in ((0, 1), (2, 5), (1, 6)):
        for whole, part in zip((probabilities, features), engine(pixels[start:stop]), strict=True):
            assert part == pytest.approx(whole[start:stop], rel=0.01, abs=0.01 * largest)


def test_the_reference_model_can_be_run_by_it():
    need_bfloat16()
    artifact = open_artifact(REFERENCE)
    engine = BFloat16Engine(artifact.path / "model.tflite")
    probabilities, _ = engine(np.zeros((1, *artifact.input_spec.shape), np.uint8))
    assert probabilities.shape == (1, len(artifact.label_set.classes))


def test_a_graph_that_it_cannot_read_is_one_error(tmp_path):
    need_bfloat16()
    file = tmp_path / "model.tflite"
    file.write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"OpenVINO cannot run .*model\.tflite: .+ Use another --engine, litert"):
        BFloat16Engine(file)


@needs_openvino
def test_a_processor_that_cannot_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(openvino, "knows_bfloat16", lambda: False)
    with pytest.raises(ArtifactError, match=r"AVX512-BF16 or AMX\. This one has neither: \w+"):
        BFloat16Engine(tmp_path / "model.tflite")


def test_where_it_is_not_installed_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    reference = open_artifact(REFERENCE)
    for ask in (lambda: BFloat16Engine(tmp_path / "model.tflite"), lambda: choose_engine(reference, "bfloat16")):
        with pytest.raises(ArtifactError, match=r"pip install 'dermaray\[openvino\]'"):
            ask()


@needs_openvino
def test_it_reports_nothing_to_its_makers(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", IMPORTED], check=True, capture_output=True, text=True)
    assert "openvino" in ran.stdout.splitlines()
    assert "openvino_telemetry" not in ran.stdout
    # Where it would keep by what name it reports.
    assert not list(tmp_path.iterdir())
