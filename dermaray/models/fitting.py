"""A network's decisions, fitted on the validation images of a manifest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dermaray.data.archive import files_listing
from dermaray.data.manifest import Manifest, check_unchanged, count_ungrouped
from dermaray.decisions.arrays import Float32Array
from dermaray.decisions.decisions import Decided, Decisions
from dermaray.decisions.fit import fit_decisions
from dermaray.decisions.settings import DecisionConfig
from dermaray.errors import DataError
from dermaray.images.resize import UInt8Array
from dermaray.images.spec import InputSpec
from dermaray.models.bulk import decode_stream
from dermaray.models.engine import Engine
from dermaray.models.predictor import run_engine

Outputs = tuple[Float32Array, Float32Array]


@dataclass(frozen=True)
class Fitted:
    """Decisions, and what they come to on the images that they were fitted on.

    Attributes:
        decisions: The decisions.
        images: Those images, rows of a manifest.
        labels: Their true classes, integer [N].
        decided: What is decided on them.
        by_others: What is decided on them where other engines run the network, by the engine's name.
    """

    decisions: Decisions
    images: pa.Table
    labels: npt.NDArray[np.integer[Any]]
    decided: Decided
    by_others: dict[str, Decided]


def decide_on_validation(
    engine: Engine,
    spec: InputSpec,
    manifest: Manifest,
    config: DecisionConfig,
    others: Mapping[str, Engine] | None = None,
) -> Fitted:
    """Run a network in this process on images that the connected Ray decodes, and fit its decisions.

    Args:
        engine: The network.
        spec: How images become its input.
        manifest: Its `val` split is used.
        config: What the decisions shall be.
        others: The same network as other engines run it, by any names; nothing is fitted to them.

    Raises:
        DataError: There is no validation image, none can be read, or one is another than when the manifest was made.
        ArtifactError: The network gives values that are no probabilities.
    """
    others = others or {}
    images, engines = manifest.rows("val"), [engine, *others.values()]
    uris: list[str] = []
    outputs: list[list[Outputs]] = [[] for _ in engines]
    for names, pixels in _decoded(images, spec):
        uris.extend(names)
        for each, found in zip(engines, outputs, strict=True):
            found.append(run_engine(each, pixels))
    if not uris:
        raise DataError(f"none of the {images.num_rows:,} validation images can be read")
    # Whatever order they came in, the decisions are the same.
    order = np.argsort(uris)
    (probabilities, features), *of_others = (_joined(found, order) for found in outputs)
    rows = images.take(pc.index_in(pa.array(uris).take(pa.array(order)), value_set=images["uri"].combine_chunks()))
    labels, groups = np.asarray(manifest.label_indices(rows)), rows["group_id"].to_numpy()
    decisions = fit_decisions(probabilities, features, labels, groups, manifest.label_set, config)
    decisions = replace(decisions, facts={**decisions.facts, "ungrouped": count_ungrouped(rows)})
    by_others = {name: decisions(*found) for name, found in zip(others, of_others, strict=True)}
    return Fitted(decisions, rows, labels, decisions(probabilities, features), by_others)


def some_pixels(images: pa.Table, spec: InputSpec, count: int) -> UInt8Array:
    """Return the pixels of at most so many images of a manifest, evenly from all of it, that can be read.

    Raises:
        DataError: None can be read, or one is another than when the manifest was made.
    """
    if not images.num_rows:
        raise DataError("int8 takes its ranges from training images, and the data have none. Leave int8 out")
    chosen = images.take(pa.array(np.unique(np.linspace(0, images.num_rows - 1, count).astype(int))))
    pixels = {name: image for found in _decoded(chosen, spec) for name, image in zip(*found, strict=True)}
    if not pixels:
        raise DataError(f"none of {chosen.num_rows:,} training images can be read")
    return np.array([pixels[uri] for uri in sorted(pixels)], np.uint8)


def _decoded(images: pa.Table, spec: InputSpec) -> Iterator[tuple[list[str], UInt8Array]]:
    """Yield the URIs and the pixels of images that can be read, in blocks, whichever comes first."""
    decoded = decode_stream(files_listing(images["uri"].to_pylist()), spec)
    # As they were decoded: what a network sees together decides its last digits.
    for block in decoded.iter_batches(batch_size=None, batch_format="numpy"):
        check_unchanged(block["uri"], block["sha256"], images)
        good = block["reason"] == ""
        if good.any():
            yield block["uri"][good].tolist(), block["image"][good]


def _joined(outputs: list[Outputs], order: npt.NDArray[np.intp]) -> Outputs:
    probabilities, features = (np.concatenate(part)[order] for part in zip(*outputs, strict=True))
    return probabilities, features
