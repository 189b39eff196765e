"""A network's decisions, fitted on the validation images of a manifest."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dermaray.data.archive import files_listing
from dermaray.data.manifest import Manifest
from dermaray.decisions.decisions import Decided, Decisions
from dermaray.decisions.fit import fit_decisions
from dermaray.decisions.settings import DecisionConfig
from dermaray.errors import DataError
from dermaray.images.resize import UInt8Array
from dermaray.images.spec import InputSpec
from dermaray.models.bulk import decode_stream
from dermaray.models.engine import Engine
from dermaray.models.predictor import ENGINE_BATCH, run_engine

SAMPLE = 64


@dataclass(frozen=True)
class Fitted:
    """Decisions, and what they come to on the images that they were fitted on.

    Attributes:
        decisions: The decisions.
        images: Those images, rows of a manifest.
        labels: Their true classes, integer [N].
        decided: What is decided on them.
        sample: The pixels of some of them, uint8 [at most `SAMPLE`, height, width, 3].
    """

    decisions: Decisions
    images: pa.Table
    labels: npt.NDArray[np.integer[Any]]
    decided: Decided
    sample: UInt8Array


def decide_on_validation(
    engine: Engine,
    spec: InputSpec,
    manifest: Manifest,
    config: DecisionConfig,
) -> Fitted:
    """Run a network in this process on images that the connected Ray decodes, and fit its decisions.

    Args:
        engine: The network.
        spec: How images become its input.
        manifest: Its `val` split is used.
        config: What the decisions shall be.

    Raises:
        DataError: There is no validation image, or none can be read.
        ArtifactError: The network gives values that are no probabilities.
    """
    images = manifest.rows("val")
    uris: list[str] = []
    outputs, sample = [], np.empty((0, *spec.shape), np.uint8)
    decoded = decode_stream(files_listing(images["uri"].to_pylist()), spec)
    for batch in decoded.iter_batches(batch_size=ENGINE_BATCH, batch_format="numpy"):
        good = batch["reason"] == ""
        if not good.any():
            continue
        uris.extend(batch["uri"][good])
        outputs.append(run_engine(engine, batch["image"][good]))
        if len(sample) < SAMPLE:
            sample = np.concatenate([sample, batch["image"][good]])[:SAMPLE]
    if not uris:
        raise DataError(f"none of the {images.num_rows:,} validation images can be read")
    # Whatever order they came in, the decisions are the same.
    order = np.argsort(uris)
    probabilities, features = (np.concatenate(part)[order] for part in zip(*outputs, strict=True))
    rows = images.take(pc.index_in(pa.array(uris).take(pa.array(order)), value_set=images["uri"].combine_chunks()))
    labels, groups = np.asarray(manifest.label_indices(rows)), rows["group_id"].to_numpy()
    decisions = fit_decisions(probabilities, features, labels, groups, manifest.label_set, config)
    return Fitted(decisions, rows, labels, decisions(probabilities, features), sample)
