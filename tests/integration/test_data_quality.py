"""A dirty source, and what becomes of it: found, shown, put aside; and refused where it leaks all the same."""

import csv
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import Augmentor
import pyarrow.parquet as pq
import pytest
from PIL import Image

import jobs.training
from dermaray.data.manifest import Manifest
from dermaray.data.synthetic import render_lesion
from dermaray.errors import DataError, LabelError, LeakError
from dermaray.training.task import WorkerTask

RunJob = Callable[..., int]

CLASSES = ("melanoma", "nevus", "dermatofibroma")
KEEP = [f"policies.{f}=keep" for f in ("augmented_copy", "exact_duplicate", "label_conflict", "split_leak")]


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render_lesion(path.parent.name, seed, (120, 160))).save(path, quality=95)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def findings(folder: Path) -> dict[str, list[list[str]]]:
    """Return the image ids of every case, by finding."""
    audit = json.loads((folder / "audit.json").read_text())
    return {
        f["finding"]: [sorted(image["image_id"] for image in case["images"]) for case in f["cases"]]
        for f in audit["findings"]
    }


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Official folders of three classes, clean but for one instance of each kind of dirt."""
    root = tmp_path_factory.mktemp("dirty") / "source"
    for split, count in (("Train", 30), ("Test", 10)):
        for c, name in enumerate(CLASSES):
            for i in range(count):
                draw(root / split / name / f"{split}_{name}_{i:02}.png", 1000 * c + 100 * (split == "Test") + i)
    train, test = root / "Train", root / "Test"
    shutil.copy(train / "nevus" / "Train_nevus_00.png", train / "nevus" / "twin.png")
    shutil.copy(train / "nevus" / "Train_nevus_01.png", test / "nevus" / "leaked.png")
    shutil.copy(train / "melanoma" / "Train_melanoma_02.png", train / "nevus" / "doubted.png")
    with Image.open(train / "melanoma" / "Train_melanoma_03.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).resize((100, 140)).save(train / "melanoma" / "turned.jpg")
    (train / "nevus" / "Train_nevus_04.png").rename(train / "nevus" / "Train_nevus_04.jpg")
    Image.new("RGB", (120, 90), (200, 150, 130)).save(train / "nevus" / "blank.png")
    shutil.copy(train / "nevus" / "Train_nevus_05.png", train / "nevus" / "Train_nevus_05_rot180.png")
    with Image.open(train / "nevus" / "Train_nevus_05.png") as image:
        image.rotate(13).save(train / "nevus" / "Train_nevus_05_rot180.png")
    return root


@pytest.fixture(scope="module")
def reference(dirty: Path) -> Path:
    """A ground truth with its metadata: a label contradicted, a lesion on both sides, a conflict settled."""
    folder = dirty.parent / "reference"
    folder.mkdir()
    truth = {"Train_nevus_06": "MEL", "Train_melanoma_02": "MEL", "doubted": "MEL", "Train_nevus_07": "NV"}
    with (folder / "truth.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"])
        writer.writerows(
            [name, *(float(label == c) for c in ("MEL", "NV")), *[0.0] * 7] for name, label in truth.items()
        )
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "age_approx", "anatom_site_general", "lesion_id", "sex"])
        writer.writerows([name, 50, "anterior torso", "L1", "male"] for name in ("Train_nevus_08", "Test_nevus_08"))
    return folder


@pytest.fixture(scope="module")
def prepared(dirty: Path, reference: Path, run_job: RunJob) -> Path:
    out = dirty.parent / "prepared"
    run_job("prepare", dirty, "--reference", reference, "--out", out)
    return out


def test_every_kind_of_dirt_is_found(prepared: Path) -> None:
    found = findings(prepared)
    assert {tuple(case) for case in found["exact_duplicate"]} == {
        ("Train_nevus_00", "twin"),
        ("Train_nevus_01", "leaked"),
        ("Train_melanoma_02", "doubted"),
    }
    assert found["label_conflict"] == [["Train_melanoma_02", "doubted"]]
    assert ["Train_melanoma_03", "turned"] in found["near_duplicate"]
    assert found["reference_contradiction"] == [["Train_nevus_06"], ["doubted"]]
    assert found["augmented_copy"] == [["Train_nevus_05", "Train_nevus_05_rot180"]]
    assert found["wrong_type"] == [["Train_nevus_04"]]
    assert found["unlike_dermoscopy"] == [["blank"]]
    assert {tuple(case) for case in found["split_leak"]} == {
        ("Train_nevus_01", "leaked"),
        ("Test_nevus_08", "Train_nevus_08"),
    }
    # Three classes are too small on both sides; six of the label set are not there at all.
    assert len(found["small_class"]) == 3 * 2 + 6


def test_each_image_ends_in_the_manifest_or_the_quarantine(dirty: Path, prepared: Path) -> None:
    quarantine = read_csv(prepared / "quarantine.csv")
    assert {row["image_id"]: row["finding"] for row in quarantine} == {
        "twin": "exact_duplicate",
        "Train_nevus_01": "exact_duplicate",
        "Train_melanoma_02": "label_conflict",
        "doubted": "label_conflict",
        "Train_nevus_06": "reference_contradiction",
        "Train_nevus_05_rot180": "augmented_copy",
        "Train_nevus_08": "split_leak",
    }
    kept = Manifest.read(prepared).table["uri"].to_pylist()
    assert sorted([*kept, *(row["uri"] for row in quarantine)]) == sorted(str(p) for p in dirty.rglob("*.*"))


def test_what_is_one_picture_is_in_one_split(prepared: Path) -> None:
    rows = {row["image_id"]: row for row in Manifest.read(prepared).table.to_pylist()}
    one, other = rows["Train_melanoma_03"], rows["turned"]
    assert (one["group_id"], one["split"], one["duplicate_cluster"]) == (
        other["group_id"],
        other["split"],
        other["duplicate_cluster"],
    )
    assert rows["Test_nevus_08"]["lesion_id"] == "L1"
    assert rows["Test_nevus_08"]["age"] == 50


def test_the_page_stands_alone_and_shows_the_pictures(prepared: Path) -> None:
    page = (prepared / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 10
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_relabelling_keeps_one_of_a_settled_conflict(
    dirty: Path, reference: Path, run_job: RunJob, tmp_path: Path
) -> None:
    relabel = ["policies.label_conflict=relabel", "policies.reference_contradiction=relabel"]
    run_job("prepare", dirty, *relabel, "--reference", reference, "--out", tmp_path / "data")
    rows = {row["image_id"]: row for row in Manifest.read(tmp_path / "data").table.to_pylist()}
    assert rows["Train_nevus_06"]["label"] == "melanoma"
    assert len({"Train_melanoma_02", "doubted"} & set(rows)) == 1
    summary = json.loads((tmp_path / "data" / "summary.json").read_text())
    assert summary["usable_images"] + sum(summary["quarantined"].values()) == summary["source_images"]


@pytest.mark.parametrize("finding", ["exact_duplicate", "near_duplicate", "split_leak", "small_class"])
def test_a_policy_of_fail_writes_nothing(
    finding: str, dirty: Path, reference: Path, run_job: RunJob, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"policies.{finding}=fail"):
        run_job("prepare", dirty, f"policies.{finding}=fail", "--reference", reference, "--out", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_unknown_label_is_refused_or_dropped_as_told(dirty: Path, run_job: RunJob, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(dirty, source)
    draw(source / "Train" / "nevus" / "x.png", 9).parent.rename(source / "Train" / "wart")
    words = ["prepare", source, "--labels", "kaggle9", "--out", tmp_path / "data"]
    with pytest.raises(LabelError, match=r"'wart'.*melanoma"):
        run_job(*words)
    run_job(*words, "policies.unknown_label=drop")
    summary = json.loads((tmp_path / "data" / "summary.json").read_text())
    assert summary["quarantined"]["unknown_label"] == len(list((source / "Train" / "wart").iterdir()))


class _Planned(Exception):
    """In place of a training."""


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[WorkerTask]:
    """The runs that were planned, and not trained; a model carries what its plan says."""
    tasks: list[WorkerTask] = []

    def stop(task: WorkerTask, *_: Any) -> None:
        tasks.append(task)
        raise _Planned

    monkeypatch.setattr(jobs.training, "_train", stop)
    return tasks


def test_folds_hold_every_image_once_and_train_takes_one(
    images: Path, config: Path, model: Path, run_job: RunJob, tmp_path: Path, planned: list[WorkerTask]
) -> None:
    run_job("prepare", images, "splits.folds=3", "--out", tmp_path / "data")
    manifest = Manifest.read(tmp_path / "data")
    ids, folds, splits = (manifest.table[c].to_pylist() for c in ("image_id", "fold", "split"))
    assert {(f is None, s) for f, s in zip(folds, splits, strict=True)} == {(True, "test"), (False, "train")}
    data = [f"data.manifest={tmp_path / 'data'}", "data.fold=1"]
    with pytest.raises(_Planned):
        run_job("train", "--config", config, *data, f"out={tmp_path / 'run'}")
    (task,) = planned
    by_fold = {of: {i for i, fold in zip(ids, folds, strict=True) if fold == of} for of in range(3)}
    assert set(task.train.image_ids.to_pylist()) == by_fold[0] | by_fold[2]
    assert set(task.val.image_ids.to_pylist()) == by_fold[1]
    # A model of these images.
    shutil.copytree(model, tmp_path / "model")
    pq.write_table(task.trained_on, tmp_path / "model" / "trained_on.parquet")
    words = ["evaluate", "--model", tmp_path / "model", "--data", tmp_path / "data", "--split", "val"]
    run_job(*words, "--fold", 1, "--out", tmp_path / "report")
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["images"] == folds.count(1)
    with pytest.raises(LeakError, match="were trained on"):
        run_job(*words, "--fold", 0, "--out", tmp_path / "other")


@pytest.fixture(scope="module")
def case_study(images: Path, tmp_path_factory: pytest.TempPathFactory, run_job: RunJob) -> dict[str, Any]:
    """The protocol of the case study: Augmentor's copies beside the originals, then a split by file."""
    root = tmp_path_factory.mktemp("case-study")
    random.seed(1)
    for name in CLASSES:
        shutil.copytree(images / name, root / "all" / name)
        pipeline = Augmentor.Pipeline(str(root / "all" / name), str(root / "all" / name))
        pipeline.rotate(probability=0.7, max_left_rotation=10, max_right_rotation=10)
        pipeline.sample(20, multi_threaded=False)
        for path in sorted((root / "all" / name).glob("*.jpg")):
            place = root / "split" / ("Val" if random.random() < 0.2 else "Train") / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    run_job("prepare", root / "split", *KEEP, "--out", root / "data")
    return {"source": root / "split", "data": root / "data"}


def test_the_gate_refuses_the_case_studys_folder_and_names_the_copies(
    case_study: dict[str, Any], config: Path, run_job: RunJob, tmp_path: Path
) -> None:
    data = f"data.manifest={case_study['data']}"
    with pytest.raises(LeakError, match=r"parent \w+/SYNTH_\d+: .*_original_SYNTH_.* in (train|val)"):
        run_job("train", "--config", config, data, f"out={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_an_override_goes_with_the_model(
    case_study: dict[str, Any], config: Path, run_job: RunJob, tmp_path: Path, planned: list[WorkerTask]
) -> None:
    data = f"data.manifest={case_study['data']}"
    with pytest.raises(_Planned):
        run_job("train", "--config", config, data, f"out={tmp_path / 'run'}", "--allow-leaks")
    assert any("_original_SYNTH_" in leak for leak in planned[0].provenance["leaks"])


def test_an_override_is_written_into_the_report(
    case_study: dict[str, Any], model: Path, run_job: RunJob, tmp_path: Path
) -> None:
    description = json.loads((shutil.copytree(model, tmp_path / "model") / "artifact.json").read_text())
    description["provenance"]["leaks"] = ["a lesion in train and val"]
    (tmp_path / "model" / "artifact.json").write_text(json.dumps(description))
    words = ["evaluate", "--model", tmp_path / "model", "--data", case_study["data"], "--split", "val"]
    with pytest.raises(LeakError):
        run_job(*words, "--out", tmp_path / "report")
    run_job(*words, "--out", tmp_path / "report", "--allow-leaks")
    assert len(json.loads((tmp_path / "report" / "metrics.json").read_text())["warnings"]) == 2
    assert (tmp_path / "report" / "report.html").read_text().count("Do not believe these figures") == 2


def test_by_default_the_copies_are_put_aside_and_the_gate_opens(
    case_study: dict[str, Any], run_job: RunJob, tmp_path: Path
) -> None:
    run_job("prepare", case_study["source"], "--out", tmp_path / "data")
    assert json.loads((tmp_path / "data" / "summary.json").read_text())["quarantined"] == {"augmented_copy": 60}
    assert run_job("audit", tmp_path / "data", "--out", tmp_path / "audit") == 0


def test_an_audit_alone_changes_nothing_and_tells_of_leaks_by_its_exit_code(
    case_study: dict[str, Any], run_job: RunJob, tmp_path: Path
) -> None:
    for name in ("source", "data"):
        assert run_job("audit", case_study[name], "--out", tmp_path / name) == 3
        audit = json.loads((tmp_path / name / "audit.json").read_text())
        assert audit["usable"] is None
        assert not audit["gate"]["passes"]
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [".dermaray", "audit.html", "audit.json"]
