"""The last step to a model: decisions, a folder, a card."""

from pathlib import Path
from typing import Any

import keras
import pyarrow as pa

from dermaray.data.manifest import Manifest
from dermaray.decisions.settings import DecisionConfig
from dermaray.evaluation.card import write_card
from dermaray.evaluation.measure import measure
from dermaray.images.spec import InputSpec
from dermaray.models.artifact import SEEN_SCHEMA, Artifact, save_artifact
from dermaray.models.engine import KerasEngine
from dermaray.models.fitting import decide_on_validation


def write_model(
    out: Path,
    model: keras.Model,
    name: str,
    version: str,
    spec: InputSpec,
    manifest: Manifest,
    decisions: DecisionConfig,
    provenance: dict[str, Any],
    trained_on: pa.Table,
) -> Artifact:
    """Fit a network's decisions on the validation images of a manifest, and save both with a card.

    Args:
        out: The folder, which is made.
        model: See `save_artifact`, like the others.
        name: What answers carry as `model`.
        version: What they carry as `model_version`.
        spec: How images become its input.
        manifest: Its `val` split must hold none of the images in `trained_on`.
        decisions: What the decisions shall be.
        provenance: What the network was made of.
        trained_on: Rows of `SEEN_SCHEMA`.

    Raises:
        DataError: There is no validation image, or none can be read.
    """
    fitted = decide_on_validation(KerasEngine(model), spec, manifest, decisions)
    out.mkdir()
    artifact = save_artifact(
        out,
        model,
        name,
        version,
        spec,
        manifest.label_set,
        fitted.decisions,
        provenance,
        trained_on,
        fitted.images.select(SEEN_SCHEMA.names).replace_schema_metadata(),
    )
    metrics = measure(fitted.decided, fitted.labels, fitted.images, manifest.label_set, fitted.decisions)
    write_card(artifact, metrics, {"Split": "the validation images, which chose epoch and decisions: too good"})
    return artifact
