import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermaray.decisions.calibration import Calibration
from dermaray.decisions.decisions import Decisions
from dermaray.decisions.novelty import fit_novelty
from dermaray.decisions.thresholds import Threshold
from dermaray.errors import ArtifactError
from dermaray.images.spec import InputSpec
from dermaray.labels import LABEL_SETS, LabelSet
from dermaray.models.artifact import FORMAT_VERSION, digest_of, open_artifact

ALERT = Threshold(0.25, 0.9, 40)
NOVELTY = fit_novelty(np.random.default_rng(0).normal(size=(20, 3)), np.arange(20))
CUSTOM = LabelSet("custom", ("melanoma", "wart"), frozenset({"melanoma"}), "melanoma")


def description(**changes: Any) -> dict[str, Any]:
    decisions = Decisions(Calibration(1.5, (0.0, 0.0)), (1.0, 2.0), 0, ALERT, (ALERT, ALERT), NOVELTY, {"images": 3})
    values: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": "trial",
        "version": "2024-03",
        "input_spec": {"height": 96, "width": 128, "resize": "crop", "scaled_decoding": False},
        "label_set": LABEL_SETS["kaggle9"].to_dict(),
        "decisions": decisions.to_dict(),
        "files": {"model.keras": "0" * 64},
        "provenance": {"seed": 3},
    } | changes
    return {"digest": digest_of(values), **values}


def save(folder: Path, values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "novelty.npz", allow_pickle=False, **NOVELTY.arrays())
    (folder / "artifact.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def test_the_description_is_read_without_the_weights(tmp_path: Path) -> None:
    artifact = open_artifact(save(tmp_path, description()))
    assert artifact.path == tmp_path
    assert artifact.name == "trial"
    assert artifact.input_spec == InputSpec(height=96, width=128, resize="crop", scaled_decoding=False)
    assert artifact.label_set is LABEL_SETS["kaggle9"]
    assert artifact.version == "2024-03"
    assert artifact.decisions.alert == ALERT
    assert artifact.decisions.novelty.scale == pytest.approx(NOVELTY.scale)
    assert artifact.files == {"model.keras": "0" * 64}
    assert artifact.digest == description()["digest"]
    assert artifact.provenance == {"seed": 3}


def test_a_label_set_of_its_own_is_read(tmp_path: Path) -> None:
    assert open_artifact(save(tmp_path, description(label_set=CUSTOM.to_dict()))).label_set == CUSTOM


def test_the_folder_of_a_run_will_do(tmp_path: Path) -> None:
    save(tmp_path / "run" / "model", description())
    assert open_artifact(tmp_path / "run").path == tmp_path / "run" / "model"


def test_a_model_within_a_model_folder_does_not_hide_it(tmp_path: Path) -> None:
    save(tmp_path / "model", description(name="inner"))
    assert open_artifact(save(tmp_path, description(name="outer"))).name == "outer"


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none does not exist. A model is made with: dermaray train"):
        open_artifact(tmp_path / "none")


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no artifact.json. A model is made with: dermaray train"):
        open_artifact(tmp_path)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1", None])
def test_a_model_of_another_version(version: object, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"has format version {version!r}; this dermaray reads {FORMAT_VERSION}"):
        open_artifact(save(tmp_path, description(format_version=version)))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'"text"'])
def test_a_damaged_description(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "artifact.json").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"artifact.json is damaged: .") as caught:
        open_artifact(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(description()))
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    values = description()
    del values[key]
    with pytest.raises(ArtifactError, match=f"is damaged: '{key}'"):
        open_artifact(save(tmp_path, values))


@pytest.mark.parametrize(
    "changes",
    [
        {"input_spec": {"height": 4}},
        {"input_spec": {"height": 96, "colour": "blue"}},
        {"label_set": {"name": "custom"}},
        {"label_set": {**CUSTOM.to_dict(), "melanoma": "freckle"}},
        {"provenance": 3},
    ],
)
def test_a_value_that_does_not_fit(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"artifact.json is damaged: ."):
        open_artifact(save(tmp_path, description(**changes)))


def test_a_changed_threshold_is_noticed(tmp_path: Path) -> None:
    values = description()
    values["decisions"]["alert"]["probability"] = 0.5
    with pytest.raises(ArtifactError, match="was changed since it was saved"):
        open_artifact(save(tmp_path, values))


def test_another_name_is_no_other_model() -> None:
    assert description(name="other", version="9")["digest"] == description()["digest"]


def test_files_are_those_that_were_saved(tmp_path: Path) -> None:
    artifact = open_artifact(save(tmp_path, description()))
    with pytest.raises(ArtifactError, match=r"lacks model.keras. Train it again, or copy the whole folder"):
        artifact.verify()
    (tmp_path / "model.keras").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"is not the file that artifact.json describes"):
        artifact.verify()


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive"])
def test_damaged_features_are_named(data: bytes, tmp_path: Path) -> None:
    save(tmp_path, description())
    (tmp_path / "novelty.npz").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"novelty.npz cannot be read: .*Copy the whole folder"):
        open_artifact(tmp_path)
