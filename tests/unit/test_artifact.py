import json
from pathlib import Path
from typing import Any

import pytest

from dermaray.errors import ArtifactError
from dermaray.images.spec import InputSpec
from dermaray.labels import LABEL_SETS, LabelSet
from dermaray.models.artifact import FORMAT_VERSION, open_artifact

CUSTOM = LabelSet("custom", ("melanoma", "wart"), frozenset({"melanoma"}), "melanoma")


def description(**changes: Any) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "name": "trial",
        "input_spec": {"height": 96, "width": 128, "resize": "crop", "scaled_decoding": False},
        "label_set": LABEL_SETS["kaggle9"].to_dict(),
        "digest": "0" * 64,
        "provenance": {"seed": 3},
    } | changes


def save(folder: Path, values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "artifact.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def test_the_description_is_read_without_the_weights(tmp_path: Path) -> None:
    artifact = open_artifact(save(tmp_path, description()))
    assert artifact.path == tmp_path
    assert artifact.name == "trial"
    assert artifact.input_spec == InputSpec(height=96, width=128, resize="crop", scaled_decoding=False)
    assert artifact.label_set is LABEL_SETS["kaggle9"]
    assert artifact.digest == "0" * 64
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
