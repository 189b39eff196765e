"""The last step to a model: decisions, a folder, a card."""

import logging
from dataclasses import replace
from pathlib import Path

import keras

from dermaray.data.manifest import Manifest
from dermaray.decisions.settings import DecisionConfig
from dermaray.evaluation.card import write_card
from dermaray.evaluation.measure import measure
from dermaray.models.artifact import SEEN_SCHEMA, Artifact
from dermaray.models.engine import KerasEngine
from dermaray.models.fitting import decide_on_validation
from dermaray.models.litert import LiteRTEngine, largest_difference, to_litert
from dermaray.models.saving import Origin, save_artifact

_log = logging.getLogger(__name__)


def write_model(
    out: Path, model: keras.Model, origin: Origin, manifest: Manifest, decisions: DecisionConfig
) -> Artifact:
    """Fit a network's decisions on the validation images of a manifest, and save both with a card.

    Args:
        out: The folder, which is made.
        model: See `save_artifact`.
        origin: What the network is.
        manifest: Its `val` split must hold none of the images that the network was trained on.
        decisions: What the decisions shall be.

    Raises:
        DataError: There is no validation image, or none can be read.
    """
    engine = KerasEngine(model)
    fitted = decide_on_validation(engine, origin.input_spec, manifest, decisions)
    litert = _converted(model)
    if litert is not None:
        differs = largest_difference(engine, LiteRTEngine(litert), fitted.sample)
        origin = replace(origin, provenance={**origin.provenance, "litert_difference": differs})
    out.mkdir()
    decided_on = fitted.images.select(SEEN_SCHEMA.names).replace_schema_metadata()
    artifact = save_artifact(out, model, origin, fitted.decisions, decided_on, litert)
    metrics = measure(fitted.decided, fitted.labels, fitted.images, manifest.label_set, fitted.decisions)
    write_card(artifact, metrics, {"Split": "the validation images, on which the decisions were fitted: too good"})
    return artifact


def _converted(model: keras.Model) -> bytes | None:
    try:
        return to_litert(model)
    # The converter raises what it pleases for what it does not know, and a model is one without it.
    except Exception as error:
        _log.warning("no LiteRT file: the network cannot be converted: %s", str(error).strip().partition("\n")[0])
        return None
