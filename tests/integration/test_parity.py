"""One preprocessing, one graph, one way to decide: evaluate, score and serve answer alike for the same bytes."""

import csv
import json
import shutil
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.ports import free_port
from dermaray.data.manifest import Manifest
from dermaray.errors import DataError, LabelError
from dermaray.models.artifact import open_artifact
from jobs.serve import serving

RunJob = Callable[..., int]

IMAGES = 32
TOLERANCE = 1e-5


def post(url: str, data: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"{url}/v1/predict", data, method="POST")
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
    return {**answer, **answer.pop("probabilities")}


@pytest.fixture(scope="module")
def evaluated(model: Path, manifest: Path, run_job: RunJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "report"
    run_job("evaluate", "--model", model, "--data", manifest, "--split", "train", "--out", out)
    return out


def test_evaluate_score_and_serve_agree(
    model: Path, manifest: Path, evaluated: Path, run_job: RunJob, fresh_serve: None, tmp_path: Path
) -> None:
    uris = Manifest.read(manifest).rows("train")["uri"].to_pylist()[:IMAGES]
    artifact = open_artifact(model)
    classes, decisions = list(artifact.label_set.classes), artifact.decisions
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for uri in uris:
            archive.write(uri, Path(uri).name)
    run_job("score", tmp_path / "images.zip", "--model", model, "--out", tmp_path / "scores", "--engine", "keras")

    def by_id(folder: Path) -> dict[str, dict[str, Any]]:
        return {row["image_id"]: row for row in pq.read_table(folder / "scores.parquet").to_pylist()}

    (warning,) = json.loads((evaluated / "metrics.json").read_text())["warnings"]
    assert "The model was trained on these images" in warning
    in_report, in_archive = by_id(evaluated), by_id(tmp_path / "scores")
    with serving(model, "127.0.0.1", free_port()) as url:
        served = {Path(uri).stem: post(url, Path(uri).read_bytes()) for uri in uris}
    assert len(in_archive) == len(served) == IMAGES
    thresholds = np.array([decisions.alert.probability, *(one.probability for one in decisions.sets)])
    for image_id, live in served.items():
        reported, archived = in_report[image_id], in_archive[image_id]
        assert sum(live[c] for c in classes) == pytest.approx(1.0, abs=1e-4)
        for answer in (archived, live):
            assert [answer[c] for c in classes] == pytest.approx([reported[c] for c in classes], abs=TOLERANCE)
            assert answer["ood_score"] == pytest.approx(reported["ood_score"], rel=1e-3)
            assert answer["model_digest"] == artifact.digest
            # At a threshold rounding decides.
            margins = np.abs(np.array([reported["melanoma"], *(reported[c] for c in classes)]) - thresholds)
            if margins.min() > TOLERANCE and abs(reported["ood_score"] - 1) > 1e-3:
                decided = ("alert", "refer", "prediction_set")
                assert [answer[name] for name in decided] == [reported[name] for name in decided]


def test_a_report_is_complete(evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert {
        "balanced_accuracy",
        "macro_auc",
        "melanoma_auc",
        "per_class",
        "confusion_matrix",
        "subgroups",
        "decisions",
    } <= set(metrics)
    low, high = metrics["intervals"]["accuracy"]
    assert low <= metrics["accuracy"] <= high
    assert "Research use only" in (evaluated / "report.html").read_text()
    assert list((evaluated / "plots").glob("*.png"))


def test_a_card_takes_the_figures_of_a_test_split(model: Path, manifest: Path, run_job: RunJob, tmp_path: Path) -> None:
    before = (model / "MODEL_CARD.md").read_text()
    assert "the validation images, on which the decisions were fitted" in before
    with pytest.raises(DataError, match="--card takes the figures of a test split"):
        run_job("evaluate", "--model", model, "--data", manifest, "--split", "val", "--out", tmp_path / "val", "--card")
    run_job("evaluate", "--model", model, "--data", manifest, "--out", tmp_path / "test", "--card")
    after = (model / "MODEL_CARD.md").read_text()
    assert "- **Split:** test" in after
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert f"Measured on {metrics['images']:,} images" in after
    # The card is no part of what answers come from.
    assert open_artifact(model).digest in after
    submission = (tmp_path / "test" / "submission.csv").read_text().splitlines()
    assert len(submission) == 1 + metrics["images"]
    assert metrics["decisions"]["fitted_on"] == 0


def test_two_models_are_compared_on_the_same_images(
    model: Path, manifest: Path, run_job: RunJob, tmp_path: Path
) -> None:
    run_job("compare", model, model, "--data", manifest, "--split", "val", "--out", tmp_path / "same")
    found = json.loads((tmp_path / "same" / "comparison.json").read_text())
    assert all(row["difference"] == 0 for row in found["figures"].values() if row["first"] is not None)
    assert (found["left_out"], found["leaks"]) == (0, [])
    assert [one["fitted_on"] for one in found["models"]] == [found["images"]] * 2
    assert "which flatters it" in (tmp_path / "same" / "comparison.html").read_text()


def test_answers_are_explained(model: Path, images: Path, run_job: RunJob, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for image in sorted(images.rglob("*.jpg"))[:3]:
        shutil.copy(image, folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    run_job("explain", folder, "--model", model, "--out", tmp_path / "explained", "--class", "melanoma")
    with (tmp_path / "explained" / "explanations.csv").open(newline="") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    assert rows.pop("broken")["problem"].startswith("not_an_image: ")
    assert len(rows) == 3
    for row in rows.values():
        assert row["explained_class"] == "melanoma"
        with Image.open(tmp_path / "explained" / row["file"]) as picture:
            assert picture.size == (2 * 48, 32)
    with pytest.raises(LabelError, match="'freckle' is no class"):
        run_job("explain", folder, "--model", model, "--out", tmp_path / "x", "--class", "freckle")
