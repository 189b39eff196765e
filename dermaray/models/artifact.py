"""A saved model: `model.keras`, `novelty.npz` and `artifact.json`, all that scoring and serving need to know; the same
network for LiteRT, `model.tflite` and `model.int8.tflite`; and `trained_on.parquet` and `decided_on.parquet`, which
evaluation asks.

`artifact.json` holds the `InputSpec`, the label set and the decisions, so none is ever read from a configuration when
images are scored, and the SHA-256 of the files, so that a damaged or exchanged one is noticed. The model's digest is
made of all of these: of two models with one digest, every answer is the same.
"""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from dermaray.decisions.decisions import Decisions
from dermaray.decisions.novelty import Novelty
from dermaray.errors import ArtifactError, LabelError
from dermaray.files import sha256_file
from dermaray.images.spec import InputSpec
from dermaray.labels import LabelSet

if TYPE_CHECKING:
    import keras

FORMAT_VERSION = 3

SEEN_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in ("sha256", "image_id", "lesion_id", "patient_id")])
"""The images that a model was trained on, and those that its epoch was chosen or its decisions were fitted on, kept so
that it is never measured on the former by mistake, nor on the latter without a word. What an older file lacks is null.
"""

DESCRIPTION, NETWORK, NOVELTY = "artifact.json", "model.keras", "novelty.npz"
LITERT, INT8 = "model.tflite", "model.int8.tflite"
"""The files that answers come from; the last two are there where the network could be converted, and was to be."""


def unseen(images: pa.Table, seen: pa.Table) -> pa.Table:
    """Return the rows of a table with a column `sha256` that are not in one of `SEEN_SCHEMA`."""
    return images.filter(pc.invert(pc.is_in(images["sha256"], value_set=seen["sha256"].combine_chunks())))


@dataclass(frozen=True)
class Artifact:
    """A saved model, opened. Its weights are read by `load_model` alone.

    Attributes:
        path: The folder.
        name: The name of the run that made it.
        version: Which of its versions this is, in its user's own words.
        input_spec: How images become its input.
        label_set: Its classes, in the order of its outputs.
        decisions: What is made of its outputs.
        files: SHA-256 of the files that its answers come from.
        digest: SHA-256 over all of the above but the names: which model this is.
        provenance: What it was made of and with, as JSON values.
    """

    path: Path
    name: str
    version: str
    input_spec: InputSpec
    label_set: LabelSet
    decisions: Decisions
    files: dict[str, str]
    digest: str
    provenance: dict[str, Any]

    def verify(self) -> None:
        """Check that the files are there and are those that were saved.

        Raises:
            ArtifactError: One is missing, or was changed since it was saved.
        """
        for name, digest in self.files.items():
            file = self.path / name
            if not file.exists():
                raise ArtifactError(f"{self.path} lacks {name}. Train it again, or copy the whole folder")
            if sha256_file(file) != digest:
                raise ArtifactError(f"{file} is not the file that artifact.json describes: their SHA-256 differ")

    def trained_on(self) -> pa.Table:
        """Return every image that the network was trained on, rows of `SEEN_SCHEMA`.

        Raises:
            ArtifactError: The list is missing or damaged.
        """
        return self._seen("trained_on.parquet")

    def decided_on(self) -> pa.Table:
        """Return every image that chose the epoch or that decisions were fitted on; see `trained_on`."""
        return self._seen("decided_on.parquet")

    def _seen(self, name: str) -> pa.Table:
        file = self.path / name
        try:
            return pq.read_table(file, schema=SEEN_SCHEMA)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{file} cannot be read: {error}. Copy the whole folder") from error

    def load_model(self) -> "keras.Model":
        """Read the network, ready to predict.

        Raises:
            ArtifactError: See `verify`; or Keras cannot read it.
        """
        self.verify()
        file = self.path / NETWORK
        import keras

        try:
            return keras.saving.load_model(file, compile=False)
        except (ValueError, TypeError, OSError, KeyError) as error:
            raise ArtifactError(f"{file} cannot be read by Keras {keras.__version__}: {error}") from error


def digest_of(values: dict[str, Any]) -> str:
    """Return a SHA-256 over all that answers come from, as `artifact.json` holds it."""
    named = {key: values[key] for key in ("input_spec", "label_set", "decisions", "files")}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def open_artifact(path: Path) -> Artifact:
    """Read the description of a saved model; cheap, without TensorFlow.

    Args:
        path: The model's folder, or the folder of the run that made it.

    Raises:
        ArtifactError: The folder is missing, is no model, is of another version, or its description is damaged.
    """
    if not (path / DESCRIPTION).exists() and (path / "model" / DESCRIPTION).exists():
        path = path / "model"
    file = path / DESCRIPTION
    if not file.exists():
        what = "holds no artifact.json" if path.exists() else "does not exist"
        raise ArtifactError(f"{path} {what}. A model is made with: dermaray train --config FILE")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            version = values["format_version"]
            raise ArtifactError(f"{file} has format version {version!r}; this dermaray reads {FORMAT_VERSION}")
        if digest_of(values) != values["digest"]:
            raise ArtifactError(f"{file} was changed since it was saved: its digest is that of other values")
        return Artifact(
            path,
            str(values["name"]),
            str(values["version"]),
            InputSpec.model_validate(values["input_spec"]),
            LabelSet.from_dict(values["label_set"]),
            Decisions.from_dict(values["decisions"], _read_novelty(path / NOVELTY)),
            dict(values["files"]),
            str(values["digest"]),
            dict(values["provenance"]),
        )
    except (OSError, ValueError, TypeError, KeyError, ValidationError, LabelError) as error:
        raise ArtifactError(f"{file} is damaged: {' '.join(str(error).split())}") from error


def _read_novelty(file: Path) -> Novelty:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Novelty.from_arrays(dict(arrays))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{file} cannot be read: {error}. Copy the whole folder") from error
