"""Preparing a source: nothing is lost, the unusable is put aside with its reason."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dermaray.data.manifest import Manifest
from dermaray.errors import DataError

RunJob = Callable[..., int]


def test_counts_add_up_and_reasons_are_given(images: Path, run_job: RunJob, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(images, source)
    first, second, *_ = sorted((source / "melanoma").iterdir())
    (source / "melanoma" / "empty.jpg").write_bytes(b"")
    (source / "melanoma" / "cut.jpg").write_bytes(first.read_bytes()[:900])
    (source / "melanoma" / "page.png").write_bytes(b"<html>")
    shutil.copy(first, source / "melanoma" / "again.jpg")
    shutil.copy(second, source / "nevus" / "contradiction.jpg")
    run_job("prepare", source, "--out", tmp_path / "data")
    summary = json.loads((tmp_path / "data" / "summary.json").read_text())
    assert summary["quarantined"] == {"unreadable": 3, "label_conflict": 2, "exact_duplicate": 1}
    assert summary["usable_images"] + sum(summary["quarantined"].values()) == summary["source_images"] == 185
    with (tmp_path / "data" / "quarantine.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert all(row["message"] for row in rows)
    assert {row["image_id"] for row in rows if row["finding"] == "label_conflict"} == {second.stem, "contradiction"}
    manifest = Manifest.read(tmp_path / "data")
    assert set(manifest.table["split"].to_pylist()) == {"train", "val", "test"}


def test_a_source_without_one_usable_image_is_refused(run_job: RunJob, tmp_path: Path) -> None:
    for label in ("melanoma", "nevus"):
        (tmp_path / "source" / label).mkdir(parents=True)
        (tmp_path / "source" / label / f"{label}.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of the 2 images .*'unreadable': 2"):
        run_job("prepare", tmp_path / "source", "--out", tmp_path / "data")
    assert not (tmp_path / "data").exists()
