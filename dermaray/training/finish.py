"""The last step to a model: decisions, a folder, a card."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pyarrow as pa
from sklearn.metrics import balanced_accuracy_score

from dermaray.data.manifest import Manifest
from dermaray.decisions.decisions import Decided
from dermaray.evaluation.card import write_card
from dermaray.evaluation.measure import measure
from dermaray.images.resize import UInt8Array
from dermaray.models.artifact import INT8, LITERT, SEEN_SCHEMA, Artifact, unseen
from dermaray.models.engine import KerasEngine
from dermaray.models.fitting import Fitted, decide_on_validation, some_pixels
from dermaray.models.litert import LiteRTEngine, to_litert
from dermaray.models.rounding import round_weights
from dermaray.models.saving import Origin, save_artifact
from dermaray.models.spec import WeightsAs

if TYPE_CHECKING:
    from dermaray.config import RunConfig
    from dermaray.training.ensembles import EnsembleConfig

CALIBRATING = 256
"""Training images from which int8 takes its ranges."""


def write_model(
    out: Path, model: keras.Model, origin: Origin, manifest: Manifest, settings: "RunConfig | EnsembleConfig"
) -> Artifact:
    """Round a network's weights, fit its decisions on the validation images of a manifest, and save both with a card.

    Args:
        out: The folder, which is made.
        model: See `save_artifact`.
        origin: What the network is.
        manifest: Its `val` split must hold none of the images that the network was trained on.
        settings: What its decisions shall be, and how it is kept: `decisions`, `weights_as` and `int8`.

    Raises:
        DataError: There is no validation image, none can be read, or one is another than when the manifest was made.
    """
    round_weights(model, settings.weights_as)
    engine, spec = KerasEngine(model), origin.input_spec
    samples: dict[str, UInt8Array | None] = {LITERT: None}
    if settings.int8:
        samples[INT8] = some_pixels(manifest.rows("train"), spec, CALIBRATING)
    there, reasons = _converted(model, samples, settings.weights_as)
    measured: dict[str, Any] = {"unconverted": reasons} if reasons else {}
    others = {name: LiteRTEngine(content) for name, content in there.items()}
    fitted = decide_on_validation(engine, spec, manifest, settings.decisions, others)
    measured["engines"] = {name: _loss(fitted, decided) for name, decided in fitted.by_others.items()}
    origin = replace(origin, provenance={**origin.provenance, **measured})
    out.mkdir()
    decided_on = fitted.images.select(SEEN_SCHEMA.names).cast(SEEN_SCHEMA)
    if origin.chosen_on is not None:
        decided_on = pa.concat_tables([decided_on, unseen(origin.chosen_on, decided_on)])
    artifact = save_artifact(out, model, origin, fitted.decisions, decided_on, there)
    metrics = measure(fitted.decided, fitted.labels, fitted.images, manifest.label_set, fitted.decisions)
    write_card(artifact, metrics, {"Split": "the validation images, on which the decisions were fitted: too good"})
    return artifact


def _converted(
    model: keras.Model, samples: Mapping[str, UInt8Array | None], weights_as: WeightsAs
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the network as LiteRT runs it, by the name of the file, and of each that cannot be made or run why not.

    Args:
        model: The network.
        samples: For each file what int8 takes its ranges from, or None for float32.
        weights_as: What its weights have been rounded to.
    """
    there, reasons = {}, {}
    for name, pixels in samples.items():
        try:
            content = to_litert(model, pixels, weights_as)
            LiteRTEngine(content)(np.zeros((1, *model.input.shape[1:]), np.uint8))
            there[name] = content
        # Both raise what they please for what they do not know, and a model is one without it.
        except Exception as error:
            reasons[name] = str(error).strip().partition("\n")[0] or type(error).__name__
    return there, reasons


def _loss(fitted: Fitted, other: Decided) -> dict[str, Any]:
    """Return what is lost where another engine runs the network than the one that the decisions were fitted to."""
    return {
        "images": len(fitted.labels),
        "largest_difference": float(np.abs(other.probabilities - fitted.decided.probabilities).max()),
        "balanced_accuracy": float(balanced_accuracy_score(fitted.labels, other.label)),
        "balanced_accuracy_of_keras": float(balanced_accuracy_score(fitted.labels, fitted.decided.label)),
    }
