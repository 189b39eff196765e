"""LiteRT: the same answers as Keras's, but for the rounding of weights."""

import zipfile
from collections import defaultdict

import keras
import numpy as np
import pytest
from tensorflow.lite.python.schema_py_generated import BuiltinOperator, TensorType
from tensorflow.lite.tools import flatbuffer_utils

from dermaray.images.spec import InputSpec
from dermaray.models.classifier import build_classifier
from dermaray.models.engine import KerasEngine
from dermaray.models.ensemble import combine
from dermaray.models.litert import LiteRTEngine, to_litert
from dermaray.models.rounding import round_weights
from dermaray.models.saving import _compress
from dermaray.models.spec import ModelConfig

SPEC = InputSpec(height=64, width=64)


def built(backbone):
    keras.utils.set_random_seed(0)
    return build_classifier(ModelConfig(backbone=backbone), SPEC, 5)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, *SPEC.shape)).astype(np.uint8)


def largest_difference(one, other, pixels):
    """Return by how much the probabilities of two engines differ at most."""
    return float(np.abs(one(pixels)[0] - other(pixels)[0]).max())


@pytest.mark.parametrize("backbone", ["case_study_cnn", "efficientnet_lite0"])
def test_it_answers_as_keras_does(backbone, pixels):
    model = built(backbone)
    engine, reference = LiteRTEngine(to_litert(model)), KerasEngine(model)
    # In batches of any size.
    for images in (pixels, pixels[:1], pixels[2:5]):
        for one, other in zip(engine(images), reference(images), strict=True):
            assert one.shape == other.shape
            assert one == pytest.approx(other, abs=0.02 * float(np.abs(other).max(initial=1)))
    assert largest_difference(engine, reference, pixels) < 0.01


def test_an_ensemble_over_views_is_converted_as_well(pixels):
    model = combine([built("case_study_cnn"), built("case_study_cnn")], 8)
    assert largest_difference(LiteRTEngine(to_litert(model)), KerasEngine(model), pixels) < 0.01


def test_int8_is_smaller_and_answers_nearly_as_keras_does(pixels):
    model = built("efficientnet_lite0")
    content = to_litert(model, pixels)
    assert len(content) < 0.65 * len(to_litert(model))
    assert largest_difference(LiteRTEngine(content), KerasEngine(model), pixels) < 0.1


def large_kernels(content):
    """Return by the kind of operation how kernels of 1,024 weights or more are kept."""
    named = [{value: name for name, value in vars(kind).items()} for kind in (BuiltinOperator, TensorType)]
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    kinds = [named[0][model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in graph.operators]
    sources = {
        o.outputs[0]: o.inputs[0] for kind, o in zip(kinds, graph.operators, strict=True) if kind == "DEQUANTIZE"
    }
    kept = defaultdict(set)
    for kind, operator in zip(kinds, graph.operators, strict=True):
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            tensor = graph.tensors[sources.get(operator.inputs[1], operator.inputs[1])]
            if np.prod(tensor.shape) >= 1024:
                kept[kind].add(named[1][tensor.type])
    return kept


@pytest.mark.parametrize(("backbones", "views"), [(["efficientnet_lite0"], 1), (["case_study_cnn"] * 2, 4)])
def test_weights_that_are_int8_are_kept_as_that(backbones, views, pixels):
    model = combine([built(backbone) for backbone in backbones], views)
    # As training leaves them: what normalisation makes of a channel is folded into its kernel.
    random = np.random.default_rng(0)
    for weights in model.weights:
        if weights.path.endswith("gamma"):
            weights.assign(random.choice([-0.3, 0, 0.7, 1.9], weights.shape))
        elif weights.path.endswith("moving_variance"):
            weights.assign(random.uniform(0.3, 4, weights.shape))
    round_weights(model, "int8")
    content = to_litert(model, weights_as="int8")
    kept = large_kernels(content)
    assert kept.pop("DEPTHWISE_CONV_2D", {"FLOAT16"}) == {"FLOAT16"}
    assert kept == {"CONV_2D": {"INT8"}, "FULLY_CONNECTED": {"INT8"}}
    # They are not rounded again, as they are where they are kept as float16.
    assert largest_difference(LiteRTEngine(content), KerasEngine(model), pixels) < 1e-3


def test_weights_that_are_not_int8_are_kept_as_float16(pixels):
    model = built("case_study_cnn")
    content, usual = to_litert(model, weights_as="int8"), to_litert(model)
    assert len(content) == pytest.approx(len(usual), rel=0.1)
    assert largest_difference(LiteRTEngine(content), LiteRTEngine(usual), pixels) < 1e-4


@pytest.mark.parametrize(("to", "share", "near"), [("float16", 0.5, 2e-3), ("int8", 0.34, 5e-2)])
def test_rounded_weights_compress(tmp_path, pixels, to, share, near):
    model = built("case_study_cnn")
    before = KerasEngine(model)(pixels)[0]
    round_weights(model, to)
    model.save(tmp_path / "model.keras")
    whole = (tmp_path / "model.keras").stat().st_size
    _compress(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size < share * whole
    assert zipfile.ZipFile(tmp_path / "model.keras").testzip() is None
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    after = KerasEngine(loaded)(pixels)[0]
    assert after == pytest.approx(KerasEngine(model)(pixels)[0], abs=1e-6)
    assert after == pytest.approx(before, abs=near)
