"""A model against the labels of a manifest's split, scored the very way that archives are."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dermaray.data.archive import files_listing
from dermaray.data.inspect import preview_images
from dermaray.data.manifest import Manifest, check_unchanged
from dermaray.decisions.arrays import IntArray
from dermaray.decisions.decisions import Decided
from dermaray.errors import DataError
from dermaray.evaluation.checks import count_decided_on, made_of
from dermaray.evaluation.measure import measure
from dermaray.evaluation.metrics import MIN_TPR
from dermaray.evaluation.mistakes import worst_mistakes
from dermaray.evaluation.report import Gallery, write_report
from dermaray.evaluation.submission import write_submission
from dermaray.labels import LabelSet
from dermaray.models.artifact import Artifact
from dermaray.models.bulk import score_stream
from dermaray.models.rows import SCORED, ScoreWriter, decided_of, score_rows


def evaluate(
    artifact: Artifact,
    manifest: Manifest,
    split: str,
    leaks: Sequence[str],
    out: Path,
    progress: Callable[[int], None],
    min_tpr: float = MIN_TPR,
) -> dict[str, Any]:
    """Score a split on the connected Ray cluster and write scores, metrics and the report.

    Args:
        artifact: The model.
        manifest: The data.
        split: Which of its splits.
        leaks: What leaks between training and these images, where the user wants figures in spite of it.
        out: An existing folder.
        progress: Called with the number of images scored since the last call.
        min_tpr: See `compute_metrics`.

    Returns:
        What `measure` does, and `facts`: of what model and images. `decisions` has besides, as `fitted_on`, on how many
        of the images they were fitted.

    Raises:
        DataError: The split is empty, the classes differ, an image has changed since, or not one could be scored.
    """
    images, label_set = manifest.rows(split), artifact.label_set
    with ScoreWriter(out, artifact) as writer:
        scores, decided = score(artifact, images, progress, writer.write)
    scored = scores.filter(pc.equal(scores["status"], SCORED))
    if not scored.num_rows:
        raise DataError(f"none of the {scores.num_rows} {split} images could be scored: {scores['message'][0]}")
    # In the order in which they were scored.
    images = images.take(pc.index_in(scored["uri"], value_set=images["uri"].combine_chunks()))
    labels = np.asarray(manifest.label_indices(images))
    metrics = measure(decided, labels, images, label_set, artifact.decisions, min_tpr)
    metrics["decisions"]["fitted_on"] = count_decided_on(artifact, images, manifest.source_name)
    facts = _facts(artifact, manifest, split, scores)
    gallery = _gallery(decided, labels, label_set, images)
    warnings = _warnings(artifact, leaks)
    if split == "train" and made_of(artifact, manifest):
        warnings.append("The model was trained on these images: they show how much it overfits, and nothing else")
    write_report(out, metrics, decided, labels, label_set, facts, gallery, warnings)
    with (out / "submission.csv").open("w", newline="", encoding="utf-8") as file:
        write_submission(file, scored, label_set)
    return {"facts": facts, **metrics}


def _gallery(decided: Decided, labels: IntArray, label_set: LabelSet, images: pa.Table) -> Gallery:
    """Return the worst mistakes by their kind, each with the image's id and a small JPEG of it."""
    mistakes = worst_mistakes(decided, labels, label_set)
    rows = [mistake.row for kind in mistakes.values() for mistake in kind]
    chosen = images.take(pa.array(rows, pa.int64()))
    jpegs = preview_images(chosen["uri"].to_pylist())
    ids, uris = (dict(zip(rows, chosen[name].to_pylist(), strict=True)) for name in ("image_id", "uri"))
    return {kind: [(m, ids[m.row], jpegs.get(uris[m.row])) for m in found] for kind, found in mistakes.items()}


def score(
    artifact: Artifact,
    images: pa.Table,
    progress: Callable[[int], None],
    write: Callable[[pa.Table], None] = lambda rows: None,
) -> tuple[pa.Table, Decided]:
    """Score images on the connected Ray cluster.

    Args:
        artifact: The model.
        images: Rows of a manifest.
        progress: Called with the number of images scored since the last call.
        write: Called with rows of `score_schema` as they come.

    Returns:
        All rows, and what was decided on those images that could be scored, in the rows' order.

    Raises:
        DataError: An image is another than when the manifest was made.
    """
    tables, batches = [], []
    stream = score_stream(files_listing(images["uri"].to_pylist()), artifact)
    for batch in stream.iter_batches(batch_size=None, batch_format="numpy"):
        rows = score_rows(batch, artifact)
        write(rows)
        tables.append(rows)
        batches.append(batch)
        progress(rows.num_rows)
    scores = pa.concat_tables(tables)
    check_unchanged(scores["uri"], scores["sha256"], images)
    return scores, decided_of(batches)


def _warnings(artifact: Artifact, leaks: Sequence[str]) -> list[str]:
    """Say, in sentences, why the figures must not be believed; empty where nothing is known against them."""
    told = {
        "What was measured on leaks into what was learnt from": leaks,
        "What the model was trained on leaks": artifact.provenance.get("leaks", []),
    }
    return [f"{what}: {found[0]}{_more(found)}" for what, found in told.items() if found]


def _more(found: Sequence[str]) -> str:
    return f"; and {len(found) - 1:,} more" if len(found) > 1 else ""


def _facts(artifact: Artifact, manifest: Manifest, split: str, scores: pa.Table) -> dict[str, str]:
    missing = scores.num_rows - pc.sum(pc.equal(scores["status"], SCORED)).as_py()
    return {
        "Model": artifact.name,
        "Model digest": artifact.digest[:16],
        "Data": manifest.source_name,
        "Data digest": manifest.digest[:16],
        "Split": split,
        "Images": f"{scores.num_rows:,}" + (f", of which {missing:,} could not be read" if missing else ""),
        "Trained on": "the train split of this data" if made_of(artifact, manifest) else "other data",
    }
