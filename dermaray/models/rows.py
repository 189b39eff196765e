"""Rows of scores as they are written: one per image, scored or with the reason why not."""

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dermaray.models.artifact import Artifact
from dermaray.models.predictor import to_prediction

SCORED = "scored"
DEAD_LETTER = "dead_letter"


def score_schema(artifact: Artifact) -> pa.Schema:
    """Return the columns of a row: who, how it went, one probability per class, and what follows from them."""
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("uri", pa.string()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("message", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            *((name, pa.float32()) for name in artifact.label_set.classes),
            ("label", pa.string()),
            ("melanoma_probability", pa.float32()),
            ("model", pa.string()),
            ("model_digest", pa.string()),
        ]
    )


def score_rows(batch: dict[str, Any], artifact: Artifact) -> pa.Table:
    """Turn a batch of `score_stream` into rows of `score_schema`; what a dead letter lacks is null."""
    good = batch["reason"] == ""
    missing = ~good
    named = [
        to_prediction(p, artifact.label_set) if g else None for p, g in zip(batch["probabilities"], good, strict=True)
    ]
    columns: dict[str, Any] = {
        "image_id": batch["image_id"],
        "uri": batch["uri"],
        "status": np.where(good, SCORED, DEAD_LETTER),
        "reason": pa.array(batch["reason"], pa.string(), mask=good),
        "message": pa.array(batch["message"], pa.string(), mask=good),
        "width": pa.array(batch["width"], pa.int32(), mask=missing),
        "height": pa.array(batch["height"], pa.int32(), mask=missing),
        **{c: pa.array([p and p.probabilities[c] for p in named], pa.float32()) for c in artifact.label_set.classes},
        "label": pa.array([p and p.label for p in named], pa.string()),
        "melanoma_probability": pa.array([p and p.melanoma_probability for p in named], pa.float32()),
        "model": np.full(len(good), artifact.name, dtype=object),
        "model_digest": np.full(len(good), artifact.digest, dtype=object),
    }
    return pa.table(columns, schema=score_schema(artifact))


class ScoreWriter:
    """Write rows as they come to `scores.parquet` and `scores.csv`; use it as a context manager.

    Args:
        out: An existing folder.
        artifact: The model that scored.
    """

    def __init__(self, out: Path, artifact: Artifact) -> None:
        schema = score_schema(artifact)
        self._parquet = pq.ParquetWriter(out / "scores.parquet", schema)
        self._csv = pa_csv.CSVWriter(out / "scores.csv", schema)

    def write(self, rows: pa.Table) -> None:
        """Append rows of `score_schema`."""
        self._parquet.write_table(rows)
        self._csv.write_table(rows)

    def __enter__(self) -> "ScoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parquet.close()
        self._csv.close()
