"""How a model is saved; see `dermaray.models.artifact` for what is."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
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

_FEW = 1024
"""As many numbers are not worth being compressed by HDF5, which takes some hundred bytes to say how it did."""


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


def _compress(path: Path) -> None:
    """Write a Keras file anew with its members compressed, which Keras itself leaves as they are."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, _shuffled(data) if name.endswith(".h5") else data)


def _shuffled(content: bytes) -> bytes:
    """Write an HDF5 file anew with first bytes of numbers beside first bytes, where rounded weights are alike."""
    made = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as source, h5py.File(made, "w") as target:

        def copy(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                how = {"chunks": node.shape, "shuffle": True, "compression": 9} if node.size > _FEW else {}
                copied = target.create_dataset(name, data=node[()], **how)
            else:
                copied = target.require_group(name)
            copied.attrs.update(node.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
    return made.getvalue()
