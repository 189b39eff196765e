"""One preprocessing, one graph: the same bytes through evaluate, score and serve give the same probabilities."""

import json
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.ports import free_port
from dermaray.data.manifest import Manifest
from dermaray.models.artifact import open_artifact
from jobs.serve import serving

RunJob = Callable[..., int]

IMAGES = 32
TOLERANCE = 1e-5


def post(url: str, data: bytes) -> dict[str, float]:
    request = urllib.request.Request(f"{url}/v1/predict", data, method="POST")
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, dict[str, float]] = json.load(response)
    return answer["probabilities"]


@pytest.fixture(scope="module")
def evaluated(model: Path, manifest: Path, run_job: RunJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "report"
    run_job("evaluate", "--model", model, "--data", manifest, "--split", "train", "--out", out)
    return out


def test_evaluate_score_and_serve_agree(
    model: Path, manifest: Path, evaluated: Path, run_job: RunJob, fresh_serve: None, tmp_path: Path
) -> None:
    uris = Manifest.read(manifest).rows("train")["uri"].to_pylist()[:IMAGES]
    classes = list(open_artifact(model).label_set.classes)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for uri in uris:
            archive.write(uri, Path(uri).name)
    run_job("score", tmp_path / "images.zip", "--model", model, "--out", tmp_path / "scores")

    def by_id(folder: Path) -> dict[str, np.ndarray]:
        rows = pq.read_table(folder / "scores.parquet").to_pylist()
        return {row["image_id"]: np.array([row[c] for c in classes]) for row in rows}

    in_report, in_archive = by_id(evaluated), by_id(tmp_path / "scores")
    with serving(model, "127.0.0.1", free_port()) as url:
        served = {Path(uri).stem: post(url, Path(uri).read_bytes()) for uri in uris}
    assert len(in_archive) == len(served) == IMAGES
    for image_id, answer in served.items():
        live = np.array([answer[c] for c in classes])
        assert live.sum() == pytest.approx(1.0, abs=1e-4)
        assert np.abs(in_report[image_id] - in_archive[image_id]).max() <= TOLERANCE
        assert np.abs(in_report[image_id] - live).max() <= TOLERANCE


def test_a_report_is_complete(evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert {"balanced_accuracy", "macro_auc", "melanoma_auc", "per_class", "confusion_matrix", "subgroups"} <= set(
        metrics
    )
    low, high = metrics["intervals"]["accuracy"]
    assert low <= metrics["accuracy"] <= high
    assert "Research use only" in (evaluated / "report.html").read_text()
    assert list((evaluated / "plots").glob("*.png"))
