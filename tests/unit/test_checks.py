"""What a model must not be measured on, and what it may."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermaray.data.manifest import SCHEMA, Manifest
from dermaray.decisions.decisions import Decisions
from dermaray.errors import LeakError
from dermaray.evaluation.checks import check_measurable, check_unseen, count_decided_on, made_of
from dermaray.images.spec import InputSpec
from dermaray.labels import LabelSet
from dermaray.models.artifact import SEEN_SCHEMA, Artifact

LABELS = LabelSet("custom", ("nevus", "melanoma"), frozenset({"melanoma"}), "melanoma")


def images(**changes: Any) -> pa.Table:
    row = dict.fromkeys(SEEN_SCHEMA.names) | {"sha256": "a" * 64, "image_id": "lesion"} | changes
    return pa.Table.from_pylist([row], SEEN_SCHEMA)


@pytest.fixture
def artifact(tmp_path: Path, decisions_of: Callable[..., Decisions]) -> Artifact:
    return Artifact(tmp_path, "m", "1", InputSpec(), LABELS, decisions_of(LABELS), {}, "0" * 64, made(source="clinic"))


@pytest.mark.parametrize(
    ("trained", "told"),
    [
        ({"sha256": "b" * 64}, "were trained on"),
        ({"image_id": "ISIC_0024306_downsampled"}, "have the ISIC number of an image that was trained on"),
        ({"lesion_id": "HAM_0000001"}, "show a lesion that was trained on"),
        ({"patient_id": "IP_0000001"}, "are of a patient who was trained on"),
    ],
)
def test_what_was_trained_on_is_known_by_any_of_its_names(
    trained: dict[str, str], told: str, artifact: Artifact
) -> None:
    pq.write_table(images(**trained), artifact.path / "trained_on.parquet")
    again = {"sha256": "c" * 64, **trained} | ({"image_id": "train/ISIC_0024306"} if "image_id" in trained else {})
    with pytest.raises(LeakError, match=f"1 of these 1 images {told}"):
        check_unseen(artifact, images(**again), "other")
    (found,) = check_unseen(artifact, images(**again), "other", allow=True)
    assert found.startswith(f"m: 1 of these 1 images {told}")


def test_names_without_a_meaning_elsewhere_tell_nothing(artifact: Artifact) -> None:
    names = {"image_id": "image1", "lesion_id": "17", "patient_id": "4"}
    pq.write_table(images(**names), artifact.path / "trained_on.parquet")
    again = images(**names, sha256="c" * 64)
    assert check_unseen(artifact, again, "other") == []
    with pytest.raises(LeakError, match=r"show a lesion that was trained on.*are of a patient who was trained on"):
        check_unseen(artifact, again, "clinic")


def test_names_of_any_clinic_that_an_ensemble_learnt_from_count(artifact: Artifact) -> None:
    members = [{"provenance": made(source=source)} for source in ("clinic", "hospital")]
    ensemble = replace(artifact, provenance={**made(source="clinic"), "members": members})
    for name in ("trained_on", "decided_on"):
        pq.write_table(images(lesion_id="17"), artifact.path / f"{name}.parquet")
    again = images(lesion_id="17", sha256="c" * 64)
    for source, seen in (("clinic", 1), ("hospital", 1), ("other", 0)):
        assert len(check_unseen(ensemble, again, source, allow=True)) == seen
        assert count_decided_on(ensemble, again, source) == seen


def test_names_of_the_clinic_that_its_weights_come_from_count(artifact: Artifact) -> None:
    pq.write_table(images(lesion_id="17"), artifact.path / "trained_on.parquet")
    again = images(lesion_id="17", sha256="c" * 64)
    hospital = made(source="hospital")
    # Its decisions may have been fitted anew before.
    for first in (hospital, {**made(source="elsewhere"), "members": [{"provenance": hospital}]}):
        tuned = replace(artifact, provenance={**made(source="clinic"), "started_from": {"provenance": first}})
        for source, seen in (("clinic", 1), ("hospital", 1), ("other", 0), ("elsewhere", 0)):
            assert len(check_unseen(tuned, again, source, allow=True)) == seen


def test_on_their_own_training_images_models_are_measured_only_by_themselves(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(images(), artifact.path / "trained_on.parquet")
    facts = {"image_id": "lesion", "sha256": "a" * 64, "uri": "a.jpg", "group_id": "g", "width": 16, "height": 16}
    rows = [{**facts, "label": "nevus", "split": "train"}]
    manifest = Manifest(pa.Table.from_pylist(rows, SCHEMA), LABELS)
    own = replace(artifact, provenance=made(digest=manifest.digest))
    other = replace(artifact, name="other", provenance=made(digest="e"))
    assert check_measurable([own], manifest, "train", allow_leaks=False) == []
    assert check_measurable([own, own], manifest, "train", allow_leaks=False) == []
    with pytest.raises(LeakError, match="m would be measured on what it has learnt"):
        check_measurable([own, other], manifest, "train", allow_leaks=False)
    found = check_measurable([own, other], manifest, "train", allow_leaks=True)
    assert [one.partition(":")[0] for one in found] == ["m", "other"]


def test_what_chose_the_epoch_is_counted_by_any_of_its_names(artifact: Artifact) -> None:
    pq.write_table(images(lesion_id="HAM_0000001"), artifact.path / "decided_on.parquet")
    others = [images(sha256="c" * 64, image_id="x", lesion_id=lesion) for lesion in ("HAM_0000001", "HAM_0000002")]
    same = images(image_id="y")
    assert count_decided_on(artifact, pa.concat_tables([same, *others]), "other") == 2
    assert count_decided_on(artifact, others[1], "clinic") == 0


def test_an_older_list_lacks_what_it_lacks(artifact: Artifact) -> None:
    pq.write_table(images().select(["sha256", "lesion_id"]), artifact.path / "trained_on.parquet")
    with pytest.raises(LeakError, match="were trained on"):
        check_unseen(artifact, images(), "clinic")
    assert check_unseen(artifact, images(sha256="c" * 64, image_id="ISIC_0024306"), "clinic") == []


def made(**data: str) -> dict[str, Any]:
    return {"data": data}


@pytest.mark.parametrize(
    ("provenance", "same"),
    [
        (made(digest="d"), True),
        (made(digest="e"), False),
        (made(digest="fold", unfolded_digest="d"), True),
        ({**made(digest="d"), "members": [{"provenance": made(digest="e")}]}, False),
        ({**made(digest="e"), "members": [{"provenance": made(digest="d")}] * 2}, True),
        ({**made(digest="e"), "members": [{"provenance": made(digest=digest)} for digest in "de"]}, False),
        ({**made(digest="d"), "started_from": {"provenance": made(digest="e")}}, True),
        ({**made(digest="e"), "started_from": {"provenance": made(digest="d")}}, False),
    ],
)
def test_a_model_is_made_of_what_its_networks_were_trained_on(
    provenance: dict[str, Any], same: bool, artifact: Artifact
) -> None:
    class Data:
        digest = "d"
        facts: ClassVar[dict[str, str]] = {}

    assert made_of(replace(artifact, provenance=provenance), Data()) is same  # type: ignore[arg-type]
