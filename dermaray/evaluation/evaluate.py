"""A model against the labels of a manifest's split, scored the very way that archives are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dermaray.data.archive import files_listing
from dermaray.data.manifest import Manifest
from dermaray.errors import DataError
from dermaray.evaluation.metrics import compute_metrics
from dermaray.evaluation.report import write_report
from dermaray.models.artifact import Artifact
from dermaray.models.rows import SCORED, ScoreWriter, score_rows


def check_labels(artifact: Artifact, manifest: Manifest) -> None:
    """Check that a model and a manifest speak of the same classes.

    Raises:
        DataError: They do not.
    """
    model, data = artifact.label_set.classes, manifest.label_set.classes
    if model != data:
        raise DataError(
            f"the model knows {', '.join(model)}; the manifest has {', '.join(data)}. "
            "Prepare the data with the model's label set (--labels)"
        )


def evaluate(
    artifact: Artifact, manifest: Manifest, split: str, out: Path, progress: Callable[[int], None]
) -> dict[str, Any]:
    """Score a split on the connected Ray cluster and write scores, metrics and the report.

    Args:
        artifact: The model.
        manifest: The data.
        split: Which of its splits.
        out: An existing folder.
        progress: Called with the number of images scored since the last call.

    Returns:
        What `compute_metrics` returns.

    Raises:
        DataError: The split is empty, the classes differ, or not one image could be scored.
    """
    from dermaray.models.bulk import score_stream

    check_labels(artifact, manifest)
    images = manifest.rows(split)
    tables = []
    with ScoreWriter(out, artifact) as writer:
        stream = score_stream(files_listing(images["uri"].to_pylist()), artifact)
        for batch in stream.iter_batches(batch_size=None, batch_format="numpy"):
            rows = score_rows(batch, artifact)
            writer.write(rows)
            tables.append(rows)
            progress(rows.num_rows)
    scores = pa.concat_tables(tables)
    scored = scores.filter(pc.equal(scores["status"], SCORED))
    if not scored.num_rows:
        raise DataError(f"none of the {scores.num_rows} {split} images could be scored: {scores['message'][0]}")
    label_of = dict(zip(images["uri"].to_pylist(), manifest.label_indices(images), strict=True))
    labels = np.array([label_of[uri] for uri in scored["uri"].to_pylist()])
    probabilities = np.column_stack([scored[name].to_numpy() for name in artifact.label_set.classes])
    metrics = compute_metrics(probabilities, labels, artifact.label_set)
    write_report(out, metrics, probabilities, labels, artifact.label_set, _facts(artifact, manifest, split, scores))
    return metrics


def _facts(artifact: Artifact, manifest: Manifest, split: str, scores: pa.Table) -> dict[str, str]:
    trained_on = artifact.provenance.get("data", {}).get("digest")
    missing = scores.num_rows - pc.sum(pc.equal(scores["status"], SCORED)).as_py()
    return {
        "Model": artifact.name,
        "Model digest": artifact.digest[:16],
        "Data": str(manifest.facts.get("source", "unknown")),
        "Data digest": manifest.digest[:16],
        "Split": split,
        "Images": f"{scores.num_rows:,}" + (f", of which {missing:,} could not be read" if missing else ""),
        "Trained on": "the train split of this data" if trained_on == manifest.digest else "other data",
    }
