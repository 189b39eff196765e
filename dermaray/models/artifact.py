"""What is saved of a model: `model.keras` and `artifact.json`, all that scoring and serving need to know, and
`trained_on.parquet`, which evaluation asks.

`artifact.json` holds the `InputSpec` and the label set, so neither is ever read from a configuration when images are
scored, and the SHA-256 of `model.keras`, so that a damaged or exchanged file is noticed.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from dermaray import __version__
from dermaray.errors import ArtifactError, LabelError
from dermaray.files import sha256_file, write_json
from dermaray.images.spec import InputSpec
from dermaray.labels import LabelSet

if TYPE_CHECKING:
    import keras

FORMAT_VERSION = 2

TRAINED_ON_SCHEMA = pa.schema([pa.field("sha256", pa.string()), pa.field("lesion_id", pa.string())])
"""The images that a model was trained on, kept so that it is never measured on them by mistake."""


@dataclass(frozen=True)
class Artifact:
    """A saved model, opened. Its weights are read by `load_model` alone.

    Attributes:
        path: The folder.
        name: The name of the run that made it.
        input_spec: How images become its input.
        label_set: Its classes, in the order of its outputs.
        digest: SHA-256 of `model.keras`: which model this is.
        provenance: What it was made of and with, as JSON values.
    """

    path: Path
    name: str
    input_spec: InputSpec
    label_set: LabelSet
    digest: str
    provenance: dict[str, Any]

    def verify(self) -> None:
        """Check that the network's file is there and is the one that was saved.

        Raises:
            ArtifactError: `model.keras` is missing, or was changed since it was saved.
        """
        file = self.path / "model.keras"
        if not file.exists():
            raise ArtifactError(f"{self.path} lacks model.keras. Train it again, or copy the whole folder")
        if sha256_file(file) != self.digest:
            raise ArtifactError(f"{file} is not the file that artifact.json describes: their SHA-256 differ")

    def trained_on(self) -> pa.Table:
        """Return `sha256` and `lesion_id` of every image that the network was trained on.

        Raises:
            ArtifactError: The list is missing or damaged.
        """
        file = self.path / "trained_on.parquet"
        try:
            return pq.read_table(file, schema=TRAINED_ON_SCHEMA)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{file} cannot be read: {error}. Copy the whole folder") from error

    def load_model(self) -> "keras.Model":
        """Read the network, ready to predict.

        Raises:
            ArtifactError: See `verify`; or Keras cannot read it.
        """
        self.verify()
        file = self.path / "model.keras"
        import keras

        try:
            return keras.saving.load_model(file, compile=False)
        except (ValueError, TypeError, OSError, KeyError) as error:
            raise ArtifactError(f"{file} cannot be read by Keras {keras.__version__}: {error}") from error


def save_artifact(
    out: Path,
    model: "keras.Model",
    name: str,
    spec: InputSpec,
    label_set: LabelSet,
    provenance: dict[str, Any],
    trained_on: pa.Table,
) -> Artifact:
    """Write a model into an existing, empty folder.

    Args:
        out: The folder.
        model: A plain functional model, without custom classes.
        name: What its answers carry as `model`.
        spec: How images become its input.
        label_set: Its classes.
        provenance: What it was made of; versions and the time are added.
        trained_on: Rows of `TRAINED_ON_SCHEMA`.
    """
    import keras
    import ray

    model.save(out / "model.keras")
    digest = sha256_file(out / "model.keras")
    made = {
        **provenance,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"dermaray": __version__, "keras": keras.__version__, "ray": ray.__version__},
    }
    description = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "input_spec": spec.model_dump(),
        "label_set": label_set.to_dict(),
        "digest": digest,
        "provenance": made,
    }
    pq.write_table(trained_on, out / "trained_on.parquet")
    write_json(out / "artifact.json", description)
    return Artifact(out, name, spec, label_set, digest, made)


def open_artifact(path: Path) -> Artifact:
    """Read the description of a saved model; cheap, without TensorFlow.

    Args:
        path: The model's folder, or the folder of the run that made it.

    Raises:
        ArtifactError: The folder is missing, is no model, is of another version, or its description is damaged.
    """
    if not (path / "artifact.json").exists() and (path / "model" / "artifact.json").exists():
        path = path / "model"
    file = path / "artifact.json"
    if not file.exists():
        what = "holds no artifact.json" if path.exists() else "does not exist"
        raise ArtifactError(f"{path} {what}. A model is made with: dermaray train --config FILE")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            version = values["format_version"]
            raise ArtifactError(f"{file} has format version {version!r}; this dermaray reads {FORMAT_VERSION}")
        return Artifact(
            path,
            str(values["name"]),
            InputSpec.model_validate(values["input_spec"]),
            LabelSet.from_dict(values["label_set"]),
            str(values["digest"]),
            dict(values["provenance"]),
        )
    except (OSError, ValueError, TypeError, KeyError, ValidationError, LabelError) as error:
        raise ArtifactError(f"{file} is damaged: {' '.join(str(error).split())}") from error
