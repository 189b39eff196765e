"""Rows of scores: every column in its place."""

from pathlib import Path

import numpy as np

from dermaray.images.spec import InputSpec
from dermaray.labels import LABEL_SETS, RESERVED_NAMES, LabelSet
from dermaray.models.artifact import Artifact
from dermaray.models.rows import score_rows, score_schema


def artifact(label_set: LabelSet) -> Artifact:
    return Artifact(Path("model"), "some-model", InputSpec(), label_set, "0" * 64, {})


def test_the_reserved_names_are_the_columns_beside_the_classes() -> None:
    label_set = LABEL_SETS["isic2018"]
    assert set(score_schema(artifact(label_set)).names) == RESERVED_NAMES | set(label_set.classes)


def test_a_scored_image_and_a_dead_letter() -> None:
    label_set = LabelSet("custom", ("nevus", "melanoma"), frozenset({"melanoma"}), "melanoma")
    batch = {
        "image_id": np.array(["a", "b"]),
        "uri": np.array(["/a.jpg", "/b.jpg"]),
        "reason": np.array(["", "truncated"]),
        "message": np.array(["", "cut short"]),
        "width": np.array([640, 0]),
        "height": np.array([480, 0]),
        "probabilities": np.array([[0.25, 0.75], [np.nan, np.nan]], np.float32),
    }
    scored, dead = score_rows(batch, artifact(label_set)).to_pylist()
    assert (scored["status"], scored["label"], scored["melanoma_probability"]) == ("scored", "melanoma", 0.75)
    assert (scored["nevus"], scored["melanoma"], scored["width"], scored["reason"]) == (0.25, 0.75, 640, None)
    assert (dead["status"], dead["reason"], dead["message"]) == ("dead_letter", "truncated", "cut short")
    assert all(dead[name] is None for name in ("label", "melanoma_probability", "nevus", "melanoma", "width", "height"))
