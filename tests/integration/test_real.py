"""A few hundred real images, where they are at hand: mixed sizes, lesions with several images, dirty folders."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dermaray.data.manifest import Manifest

RunJob = Callable[..., int]

DATA = Path(os.environ.get("DERMARAY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (DATA / "ham10000").is_dir(), reason=f"no real images at {DATA} (DERMARAY_DATA)"),
]


@pytest.fixture(scope="module")
def ham_subset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HAM10000's first lesions, 150 images, linked rather than copied."""
    folder = tmp_path_factory.mktemp("ham")
    (folder / "images").mkdir()
    with (DATA / "ham10000" / "HAM10000_metadata.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["lesion_id"])
    rows = [row for row in rows[:150] if (DATA / "ham10000" / "images" / f"{row['image_id']}.jpg").exists()]
    with (folder / "HAM10000_metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        name = f"{row['image_id']}.jpg"
        (folder / "images" / name).symlink_to(DATA / "ham10000" / "images" / name)
    return folder


def test_ham10000_all_the_way(ham_subset: Path, config: Path, run_job: RunJob, tmp_path: Path) -> None:
    run_job("prepare", ham_subset, "--out", tmp_path / "data")
    manifest = Manifest.read(tmp_path / "data")
    assert manifest.label_set.name == "isic2018"
    lesions: dict[str, set[str]] = {}
    for group, split in zip(manifest.table["group_id"].to_pylist(), manifest.table["split"].to_pylist(), strict=True):
        lesions.setdefault(group, set()).add(split)
    assert len(lesions) < manifest.table.num_rows
    assert all(len(splits) == 1 for splits in lesions.values())

    run_job("train", "--config", config, f"out={tmp_path / 'run'}", f"data.manifest={tmp_path / 'data'}")
    data = ["--data", tmp_path / "data", "--split", "val", "--out", tmp_path / "report"]
    run_job("evaluate", "--model", tmp_path / "run", *data)
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["images"] == manifest.rows("val").num_rows

    shutil.make_archive(str(tmp_path / "archive"), "zip", ham_subset)
    words = ("--model", tmp_path / "run", "--out", tmp_path / "scores", "--actors", 1)
    run_job("score", tmp_path / "archive.zip", *words)
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["images"] == summary["scored"] == manifest.table.num_rows
    assert summary["ignored_files"] == {".csv": 1}


def test_kaggle9_official_folders_and_contradictions(run_job: RunJob, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for split in ("Train", "Test"):
        for folder in sorted((DATA / "kaggle9" / split).iterdir()):
            (source / split / folder.name).mkdir(parents=True)
            # The published set files the same images under these two diagnoses.
            doubtful = folder.name in ("seborrheic keratosis", "melanoma")
            for path in sorted(folder.iterdir())[: None if doubtful else 30]:
                (source / split / folder.name / path.name).symlink_to(path)
    run_job("prepare", source, "--out", tmp_path / "data")
    summary = json.loads((tmp_path / "data" / "summary.json").read_text())
    assert summary["label_set"] == "kaggle9"
    assert summary["quarantined"]["label_conflict"] > 0
    manifest = Manifest.read(tmp_path / "data")
    splits = zip(manifest.table["uri"].to_pylist(), manifest.table["split"].to_pylist(), strict=True)
    assert all((split == "test") == ("/Test/" in uri) for uri, split in splits)
