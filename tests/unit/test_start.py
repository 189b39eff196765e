"""What a run starts from: the images that its first weights have seen stay known, and are not measured on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dermaray.config import RunConfig
from dermaray.data.manifest import SCHEMA, Manifest
from dermaray.errors import ArtifactError, LeakError
from dermaray.labels import LabelSet
from dermaray.models import artifact as artifacts
from dermaray.models.artifact import SEEN_SCHEMA, Artifact
from dermaray.training import start
from dermaray.training.start import check_start, start_of
from dermaray.training.task import plan_run

CLASSES = ("nevus", "melanoma")
SPLITS = {"train": "a", "val": "b", "test": "c"}
"""The one image of each split, by the letter that its digest is of."""


def seen(*letters: str) -> pa.Table:
    return pa.Table.from_pylist([{"sha256": letter * 64, "image_id": letter} for letter in letters], SEEN_SCHEMA)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make the file of a model that was trained and decided on the images of some letters."""

    def make(trained_on: str = "", decided_on: str = "") -> Path:
        file = tmp_path / artifacts.NETWORK
        file.write_bytes(b"weights")
        (tmp_path / artifacts.DESCRIPTION).touch()
        artifacts.pq.write_table(seen(*trained_on), tmp_path / "trained_on.parquet")
        artifacts.pq.write_table(seen(*decided_on), tmp_path / "decided_on.parquet")
        files = {file.name: start.sha256_file(file)}
        told = {"data": {"source": "clinic", "digest": "d"}}
        rest: Any = None
        model = Artifact(tmp_path, "first", "3", rest, rest, rest, files, "e" * 64, told)
        monkeypatch.setattr(start, "open_artifact", lambda _: model)
        return file

    return make


def config_of(weights: object, **rest: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "t",
            "out": "t",
            "data": {"manifest": "m"},
            "input": {"height": 16, "width": 16},
            "model": {"weights": str(weights)},
            "training": {"global_batch_size": 1},
            **rest,
        }
    )


@pytest.fixture
def manifest() -> Manifest:
    filled = {"uri": "a.jpg", "group_id": "g", "width": 16, "height": 16, "label": "nevus"}
    rows = [{**filled, "image_id": a, "sha256": a * 64, "split": split} for split, a in SPLITS.items()]
    return Manifest(pa.Table.from_pylist(rows, SCHEMA), LabelSet("two", CLASSES, frozenset(), None))


def test_a_run_keeps_what_its_first_weights_have_seen(weights: Callable[..., Path], manifest: Manifest) -> None:
    task = plan_run(config_of(weights("ax", "xy")), manifest, 1.0)
    assert task.trained_on["image_id"].to_pylist() == ["a", "a", "x"]
    assert task.chosen_on["image_id"].to_pylist() == ["y"]
    told = task.provenance["started_from"]
    assert (told["name"], told["version"], told["digest"]) == ("first", "3", "e" * 64)
    assert told["provenance"]["data"]["source"] == "clinic"


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_has_been_learnt_validates_and_measures_nothing(
    split: str, weights: Callable[..., Path], manifest: Manifest
) -> None:
    config = config_of(weights(SPLITS[split]))
    known = r"model\.weights: .* its first weights know what is held out here \(val, test\): first: 1 of these 2 images"
    with pytest.raises(LeakError, match=known):
        check_start(config, manifest, allow=False)
    assert len(check_start(config, manifest, allow=True)) == 1


def test_training_may_go_on_with_the_images_of_before(weights: Callable[..., Path], manifest: Manifest) -> None:
    file = weights(SPLITS["train"])
    assert check_start(config_of(file), manifest, allow=False) == []
    # Each fold is validated on what the others are trained on.
    with pytest.raises(LeakError, match="1 of these 3 images"):
        check_start(config_of(file, folds=2), manifest, allow=False)


def test_of_weights_without_a_model_nothing_is_known(
    weights: Callable[..., Path], manifest: Manifest, tmp_path: Path
) -> None:
    weights("b")
    beside = tmp_path / "saved.weights.h5"
    beside.write_bytes(b"other weights")
    alone = tmp_path / "elsewhere" / artifacts.NETWORK
    alone.parent.mkdir()
    alone.write_bytes(b"other weights")
    for file in (beside, alone):
        assert start_of(config_of(file).model).provenance == {"file": str(file)}
        assert check_start(config_of(file), manifest, allow=False) == []


def test_a_copy_within_the_folder_of_a_model_is_known(weights: Callable[..., Path], tmp_path: Path) -> None:
    copied = shutil.copy(weights("b"), tmp_path / "copy.keras")
    assert start_of(config_of(copied).model).provenance["name"] == "first"


def test_weights_that_are_not_their_model_s_are_refused(weights: Callable[..., Path], manifest: Manifest) -> None:
    file = weights("b")
    file.write_bytes(b"other weights")
    with pytest.raises(ArtifactError, match=r"model\.keras is not the file that artifact\.json describes"):
        check_start(config_of(file), manifest, allow=False)


@pytest.mark.parametrize("first", ["none", "imagenet"])
def test_most_runs_start_from_nobody_s(first: str, manifest: Manifest) -> None:
    begun = start_of(config_of(first).model)
    assert begun.provenance == {}
    assert len(begun.trained_on) == len(begun.decided_on) == 0
    assert check_start(config_of(first), manifest, allow=False) == []
