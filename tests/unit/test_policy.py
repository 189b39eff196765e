import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermaray.data.audit import Detection, detect
from dermaray.data.examine import Examined
from dermaray.data.findings import KINDS, Case, Findings, Policies
from dermaray.data.groups import crossings
from dermaray.data.inspect import Inspected
from dermaray.data.policy import Fates, apply_policies
from dermaray.data.source import SourceImage
from dermaray.errors import DataError
from dermaray.labels import LABEL_SETS

MEL, NV, SK = "melanoma", "nevus", "seborrheic keratosis"


def source(
    findings: Findings,
    labels: list[str],
    reference: list[str | None] | None = None,
    splits: list[str | None] | None = None,
    parents: list[str | None] | None = None,
    widths: list[int] | None = None,
) -> Examined:
    count = len(labels)
    images = [
        SourceImage(f"i{p}", f"/i{p}.jpg", label, official_split=(splits or [None] * count)[p])
        for p, label in enumerate(labels)
    ]
    inspected = [Inspected("", "JPEG", (widths or [100] * count)[p], 100, "", "", None, None) for p in range(count)]
    matched = [None if label is None else SourceImage("r", None, label) for label in reference or [None] * count]
    bonds = {"parent": parents or [None] * count}
    detection = Detection(findings, bonds, [image.image_id for image in images])
    return Examined(images, inspected, labels, matched, LABEL_SETS["kaggle9"], detection)


def fates(examined: Examined, **policies: str) -> Fates:
    return apply_policies(examined, Policies.model_validate(policies))


def test_an_image_leaves_for_the_first_reason_alone() -> None:
    found = {"exact_duplicate": [Case((0, 1), "same")], "label_conflict": [Case((0, 1), "two labels")]}
    assert fates(source(found, [MEL, NV])).finding == ["label_conflict", "label_conflict"]


def test_of_duplicates_the_one_held_out_stays_then_the_largest_then_the_first() -> None:
    found = {"exact_duplicate": [Case((0, 1, 2), "same")]}
    assert fates(source(found, [MEL] * 3, splits=["train", "test", "train"])).usable() == [1]
    assert fates(source(found, [MEL] * 3, widths=[100, 100, 200])).usable() == [2]
    assert fates(source(found, [MEL] * 3)).usable() == [0]


def test_of_copies_the_parent_stays_wherever_it_lies() -> None:
    found = {"augmented_copy": [Case((0, 1), "made from i1")]}
    examined = source(found, [MEL] * 2, splits=["test", "train"], parents=["melanoma/i1", "melanoma/i1"])
    assert fates(examined).usable() == [1]


def test_one_copy_stays_where_there_is_no_parent() -> None:
    found = {"augmented_copy": [Case((0, 1), "made from gone")]}
    assert fates(source(found, [MEL] * 2, parents=["melanoma/gone", "melanoma/gone"])).usable() == [0]


def test_the_training_side_of_a_leak_goes() -> None:
    found = {"split_leak": [Case((0, 1, 2), "lesion L")]}
    decided = fates(source(found, [MEL] * 3, splits=["train", "val", "test"]))
    assert (decided.usable(), decided.finding) == ([2], ["split_leak", "split_leak", None])


def test_a_leak_that_another_finding_has_mended_is_none() -> None:
    found = {"exact_duplicate": [Case((0, 1), "same")], "split_leak": [Case((0, 1, 2), "lesion L")]}
    # The copy in test goes with its like in val, and val is all that is left.
    decided = fates(source(found, [MEL] * 3, splits=["val", "train", "val"]))
    assert decided.finding == [None, "exact_duplicate", None]


def test_relabelling_takes_the_references_word_and_the_copies_become_duplicates() -> None:
    found = {"label_conflict": [Case((0, 1), "two labels")], "exact_duplicate": [Case((0, 1), "same")]}
    # BKL is two classes of this set; only one of them is in dispute.
    decided = fates(source(found, [MEL, SK], reference=["BKL", "BKL"]), label_conflict="relabel")
    assert decided.classes == [SK, SK]
    assert decided.finding == [None, "exact_duplicate"]
    assert decided.relabelled == {0: "label_conflict"}


def test_relabelling_drops_what_the_reference_does_not_settle() -> None:
    found = {"label_conflict": [Case((0, 1), "two labels")]}
    decided = fates(source(found, [MEL, NV], reference=["BKL", None]), label_conflict="relabel")
    assert decided.finding == ["label_conflict"] * 2
    assert "does not settle" in decided.message[0]


# Too small a class is found after splitting.
@pytest.mark.parametrize("finding", [k for k in KINDS if k != "small_class"])
def test_fail_stops_and_names_the_images(finding: str) -> None:
    cases = [Case((p,), "seen") for p in range(5)]
    with pytest.raises(DataError, match=rf"i0 \(seen\), i1 .*and 2 more.*policies.{finding}=fail"):
        fates(source({finding: cases}, [MEL] * 5), **{finding: "fail"})


@pytest.mark.parametrize("finding", [k for k in KINDS if "keep" in str(Policies.model_fields[k].annotation)])
def test_keep_leaves_every_image(finding: str) -> None:
    found = {finding: [Case((0, 1), "seen")]}
    assert fates(source(found, [MEL, NV]), **{finding: "keep"}).usable() == [0, 1]


cases = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True), max_size=4)


@given(found=st.dictionaries(st.sampled_from([k for k in KINDS if k != "unknown_label"]), cases), seed=st.randoms())
def test_whatever_is_found_each_image_ends_in_one_place(found: dict[str, list[list[int]]], seed) -> None:
    findings = {kind: [Case(tuple(case), "seen") for case in listed] for kind, listed in found.items()}
    labels = [seed.choice([MEL, NV]) for _ in range(8)]
    decided = fates(source(findings, labels, splits=[seed.choice(["train", "test"]) for _ in range(8)]))
    assert len(decided.usable()) + sum(finding is not None for finding in decided.finding) == 8
    told = zip(decided.finding, decided.message, strict=True)
    assert all(bool(message) == (finding is not None) for finding, message in told)


ids = st.lists(st.one_of(st.none(), st.sampled_from("abc")), min_size=9, max_size=9)
digests = st.lists(st.sampled_from("0123456789"), min_size=9, max_size=9)
official = st.lists(st.sampled_from(["train", "val", "test"]), min_size=9, max_size=9)


@given(lesions=ids, patients=ids, sha256=digests, splits=official)
def test_what_default_policies_leave_passes_the_gate(
    lesions: list[str | None], patients: list[str | None], sha256: list[str], splits: list[str]
) -> None:
    images = [
        SourceImage(f"i{p}", f"/i{p}.jpg", MEL, lesion_id=lesions[p], patient_id=patients[p], official_split=splits[p])
        for p in range(9)
    ]
    inspected = [Inspected(digest, "JPEG", 9, 9, "", "", None, None) for digest in sha256]
    detection = detect(images, inspected, [MEL] * 9, [None] * 9)
    examined = Examined(images, inspected, [MEL] * 9, [None] * 9, LABEL_SETS["kaggle9"], detection)
    kept = fates(examined).usable()
    bonds = {bond: [column[p] for p in kept] for bond, column in {**detection.bonds, "group": detection.groups}.items()}
    assert kept
    assert crossings(bonds, [splits[p] for p in kept]) == []


def test_copies_of_a_contested_parent_go_with_it() -> None:
    stems = ["a", "a_rot90", "b", "b_flip"]
    labels, digests = [MEL, MEL, NV, NV], ["same", "1", "same", "2"]
    images = [SourceImage(stem, f"/{stem}.jpg", label) for stem, label in zip(stems, labels, strict=True)]
    inspected = [Inspected(digest, "JPEG", 9, 9, "", "", None, None) for digest in digests]
    detection = detect(images, inspected, labels, [None] * 4)
    examined = Examined(images, inspected, labels, [None] * 4, LABEL_SETS["kaggle9"], detection)
    assert fates(examined).finding == ["label_conflict"] * 4
