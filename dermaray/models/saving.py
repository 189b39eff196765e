"""How a model is saved; see `dermaray.models.artifact` for what is."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from dermaray import __version__
from dermaray.decisions.decisions import Decisions
from dermaray.files import sha256_file, write_json
from dermaray.images.spec import InputSpec
from dermaray.labels import LabelSet
from dermaray.models.artifact import (
    DESCRIPTION,
    FORMAT_VERSION,
    NETWORK,
    NOVELTY,
    Artifact,
    digest_of,
    open_artifact,
)
from dermaray.models.weights import set_weights


@dataclass(frozen=True)
class Origin:
    """What a network is, and was made of.

    Attributes:
        name: What answers carry as `model`.
        version: What they carry as `model_version`.
        input_spec: How images become its input.
        label_set: Its classes, in the order of its outputs.
        provenance: What it was made of, as JSON values.
        trained_on: The images that it was trained on, rows of `SEEN_SCHEMA`.
        chosen_on: Those by which it was chosen, besides those that its decisions are fitted on; rows of the same.
    """

    name: str
    version: str
    input_spec: InputSpec
    label_set: LabelSet
    provenance: dict[str, Any]
    trained_on: pa.Table
    chosen_on: pa.Table | None = None


def save_artifact(
    out: Path,
    model: keras.Model,
    origin: Origin,
    decisions: Decisions,
    decided_on: pa.Table,
    converted: Mapping[str, bytes],
) -> Artifact:
    """Write a model into an existing, empty folder.

    Args:
        out: The folder.
        model: A plain functional model, without custom classes.
        origin: What it is; versions and the time are added.
        decisions: What is made of its outputs.
        decided_on: The images that chose the epoch or that they were fitted on, rows of `SEEN_SCHEMA`.
        converted: The same network as `to_litert` converts it: `LITERT` and `INT8`, or what there is of them.
    """
    model.save(out / NETWORK)
    _compress(out / NETWORK)
    np.savez(out / NOVELTY, allow_pickle=False, **decisions.novelty.arrays())
    for name, content in converted.items():
        (out / name).write_bytes(content)
    pq.write_table(origin.trained_on, out / "trained_on.parquet")
    pq.write_table(decided_on, out / "decided_on.parquet")
    answers = {
        "input_spec": origin.input_spec.model_dump(),
        "label_set": origin.label_set.to_dict(),
        "decisions": decisions.to_dict(),
        "files": {file: sha256_file(out / file) for file in (NETWORK, NOVELTY, *converted)},
    }
    made = {
        **origin.provenance,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"dermaray": __version__, "keras": keras.__version__, "ray": ray.__version__},
    }
    head = {"format_version": FORMAT_VERSION, "name": origin.name, "version": origin.version}
    write_json(out / DESCRIPTION, {**head, "digest": digest_of(answers), **answers, "provenance": made})
    return open_artifact(out)


def round_weights(model: keras.Model) -> None:
    """Round a model's weights to float16, in place; they stay float32, but compress to little more than half."""
    set_weights(model, [weights.astype(np.float16).astype(weights.dtype) for weights in model.get_weights()])


def _compress(path: Path) -> None:
    """Write a Keras file anew with its members compressed, which Keras itself leaves as they are."""
    with zipfile.ZipFile(path) as file:
        members = [(info, file.read(info)) for info in file.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for info, data in members:
            file.writestr(info.filename, data)
