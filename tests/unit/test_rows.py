"""Rows of scores: every column in its place."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dermaray.decisions.decisions import Decisions
from dermaray.images.spec import InputSpec
from dermaray.labels import LABEL_SETS, RESERVED_NAMES, LabelSet
from dermaray.models.artifact import Artifact
from dermaray.models.rows import ScoreWriter, decided_of, score_rows, score_schema

TWO = LabelSet("custom", ("nevus", "melanoma"), frozenset({"melanoma"}), "melanoma")


@pytest.fixture
def artifact_of(decisions_of: Callable[..., Decisions]) -> Callable[[LabelSet], Artifact]:
    def make(label_set: LabelSet) -> Artifact:
        decisions = decisions_of(label_set)
        return Artifact(Path("model"), "some-model", "3", InputSpec(), label_set, decisions, {}, "0" * 64, {})

    return make


def scored_batch() -> dict[str, Any]:
    return {
        "image_id": np.array(["a", "b"]),
        "uri": np.array(["/a.jpg", "/b.jpg"]),
        "reason": np.array(["", "truncated"]),
        "message": np.array(["", "cut short"]),
        "sha256": np.array(["a" * 64, "b" * 64]),
        "width": np.array([640, 0]),
        "height": np.array([480, 0]),
        "probabilities": np.array([[0.25, 0.75], [0, 0]], np.float32),
        "label": np.array([1, 0]),
        "alert": np.array([True, False]),
        "refer": np.array([True, False]),
        "prediction_set": np.array([[True, True], [False, False]]),
        "ood_score": np.array([0.5, 0], np.float32),
    }


def test_the_reserved_names_are_the_columns_beside_the_classes(artifact_of: Callable[[LabelSet], Artifact]) -> None:
    label_set = LABEL_SETS["isic2018"]
    assert set(score_schema(artifact_of(label_set)).names) == RESERVED_NAMES | set(label_set.classes)


def test_a_scored_image_and_a_dead_letter(artifact_of: Callable[[LabelSet], Artifact]) -> None:
    scored, dead = score_rows(scored_batch(), artifact_of(TWO)).to_pylist()
    assert (scored["status"], scored["label"], scored["melanoma_probability"]) == ("scored", "melanoma", 0.75)
    assert (scored["nevus"], scored["melanoma"], scored["width"], scored["reason"]) == (0.25, 0.75, 640, None)
    assert (dead["status"], dead["reason"], dead["message"]) == ("dead_letter", "truncated", "cut short")
    assert (scored["alert"], scored["refer"], scored["ood_score"]) == (True, True, 0.5)
    assert scored["prediction_set"] == ["nevus", "melanoma"]
    assert (scored["model"], scored["model_version"], scored["model_digest"]) == ("some-model", "3", "0" * 64)
    known = {"image_id", "uri", "status", "reason", "message", "sha256", "scored_at"}
    known |= {"model", "model_version", "model_digest"}
    assert {name for name, value in dead.items() if value is not None} == known


def test_without_alerts_the_column_is_empty(artifact_of: Callable[[LabelSet], Artifact]) -> None:
    batch = scored_batch()
    del batch["alert"]
    assert score_rows(batch, artifact_of(TWO))["alert"].to_pylist() == [None, None]
    assert decided_of([batch]).alert is None


def test_a_csv_has_the_classes_of_a_set_in_one_text(
    tmp_path: Path, artifact_of: Callable[[LabelSet], Artifact]
) -> None:
    artifact = artifact_of(TWO)
    with ScoreWriter(tmp_path, artifact) as writer:
        writer.write(score_rows(scored_batch(), artifact))
    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        scored, dead = csv.DictReader(file)
    assert (scored["prediction_set"], dead["prediction_set"]) == ("nevus|melanoma", "")
    assert pq.read_table(tmp_path / "scores.parquet")["prediction_set"].to_pylist() == [["nevus", "melanoma"], None]


def test_what_was_decided_is_that_of_the_scored_images() -> None:
    decided = decided_of([scored_batch(), scored_batch()])
    assert decided.label.tolist() == [1, 1]
    assert decided.prediction_set.tolist() == [[True, True]] * 2
