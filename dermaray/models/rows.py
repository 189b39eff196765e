"""Rows of scores as they are written: one per image, scored or with the reason why not."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dermaray.decisions.decisions import Decided
from dermaray.errors import ImageError
from dermaray.models.artifact import Artifact

SCORED = "scored"
DEAD_LETTER = "dead_letter"

SEPARATOR = "|"
"""Between the classes of a prediction set in a CSV."""


def score_schema(artifact: Artifact) -> pa.Schema:
    """Return the columns of a row: who, how it went, one probability per class, and what follows from them."""
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("uri", pa.string()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("message", pa.string()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            *((name, pa.float32()) for name in artifact.label_set.classes),
            ("label", pa.string()),
            ("melanoma_probability", pa.float32()),
            ("alert", pa.bool_()),
            ("refer", pa.bool_()),
            ("prediction_set", pa.list_(pa.string())),
            ("ood_score", pa.float32()),
            ("model", pa.string()),
            ("model_version", pa.string()),
            ("model_digest", pa.string()),
            ("scored_at", pa.timestamp("s", "UTC")),
        ]
    )


def score_rows(batch: dict[str, Any], artifact: Artifact) -> pa.Table:
    """Turn a batch of `score_stream` into rows of `score_schema`; what a dead letter lacks is null."""
    schema = score_schema(artifact)
    good, classes = batch["reason"] == "", np.array(artifact.label_set.classes)
    missing, probabilities = ~good, batch["probabilities"]
    melanoma = artifact.label_set.melanoma_index
    sets = [classes[held].tolist() if g else None for held, g in zip(batch["prediction_set"], good, strict=True)]
    nothing = pa.nulls(len(good))
    columns: dict[str, Any] = {
        "image_id": batch["image_id"],
        "uri": batch["uri"],
        "status": np.where(good, SCORED, DEAD_LETTER),
        "reason": pa.array(batch["reason"], pa.string(), mask=good),
        "message": pa.array(batch["message"], pa.string(), mask=good),
        "sha256": pa.array(batch["sha256"], pa.string(), mask=batch["sha256"] == ""),
        "width": pa.array(batch["width"], pa.int32(), mask=missing),
        "height": pa.array(batch["height"], pa.int32(), mask=missing),
        **{name: pa.array(probabilities[:, k], mask=missing) for k, name in enumerate(classes)},
        "label": pa.array(classes[batch["label"]], pa.string(), mask=missing),
        "melanoma_probability": nothing if melanoma is None else pa.array(probabilities[:, melanoma], mask=missing),
        "alert": pa.array(batch["alert"], mask=missing) if "alert" in batch else nothing,
        "refer": pa.array(batch["refer"], mask=missing),
        "prediction_set": sets,
        "ood_score": pa.array(batch["ood_score"], mask=missing),
        **{
            name: pa.repeat(pa.scalar(value, schema.field(name).type), len(good))
            for name, value in _signature(artifact).items()
        },
    }
    return pa.table(columns, schema=schema)


def dead_letter(image_id: str, uri: str, error: ImageError, artifact: Artifact) -> pa.Table:
    """Return the row of `score_schema` of an image of which no process lived to tell."""
    row = {"image_id": image_id, "uri": uri, "status": DEAD_LETTER, "reason": error.reason, "message": str(error)}
    return pa.Table.from_pylist([{**row, **_signature(artifact)}], schema=score_schema(artifact))


def _signature(artifact: Artifact) -> dict[str, Any]:
    """Return the columns that are the same for all rows of a moment."""
    model = {"model": artifact.name, "model_version": artifact.version, "model_digest": artifact.digest}
    return {**model, "scored_at": datetime.now(UTC).replace(microsecond=0)}


def decided_of(batches: Sequence[dict[str, Any]]) -> Decided:
    """Return what was decided on the images of batches of `score_stream`, at least one, that could be scored."""
    good = np.concatenate([batch["reason"] == "" for batch in batches])
    names = [field.name for field in fields(Decided) if field.name in batches[0]]
    columns: dict[str, Any] = {name: np.concatenate([batch[name] for batch in batches])[good] for name in names}
    return Decided(**{"alert": None, **columns})


class CsvWriter:
    """Write rows as they come as CSV; use it as a context manager.

    A CSV has no lists: there the classes of a prediction set stand in one text, with `SEPARATOR` between them.

    Args:
        file: A path, or a file open for writing.
        artifact: The model that scored.
    """

    def __init__(self, file: Path | IO[bytes], artifact: Artifact) -> None:
        schema = score_schema(artifact)
        self._position = schema.get_field_index("prediction_set")
        self._writer = pa_csv.CSVWriter(file, schema.set(self._position, pa.field("prediction_set", pa.string())))

    def write(self, rows: pa.Table) -> None:
        """Append rows of `score_schema`."""
        joined = pc.binary_join(rows["prediction_set"], SEPARATOR)
        self._writer.write_table(rows.set_column(self._position, "prediction_set", joined))

    def __enter__(self) -> "CsvWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


class ScoreWriter:
    """Write rows as they come to `scores.parquet` and `scores.csv`; use it as a context manager.

    Args:
        out: An existing folder.
        artifact: The model that scored.
    """

    def __init__(self, out: Path, artifact: Artifact) -> None:
        self._parquet = pq.ParquetWriter(out / "scores.parquet", score_schema(artifact))
        self._csv = CsvWriter(out / "scores.csv", artifact)

    def write(self, rows: pa.Table) -> None:
        """Append rows of `score_schema`."""
        self._parquet.write_table(rows)
        self._csv.write(rows)

    def __enter__(self) -> "ScoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parquet.close()
        self._csv.__exit__(kind, error, trace)
