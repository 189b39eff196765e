import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaray.data.audit import Detection
from dermaray.data.duplicates import Pairs
from dermaray.data.examine import Examined, assess
from dermaray.data.findings import KINDS, Case, Findings, Policies
from dermaray.data.groups import crossings
from dermaray.data.inspect import Inspected
from dermaray.data.pictures import Pictures
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
    copies = [parent not in (None, f"i{p}") for p, parent in enumerate(parents or [None] * count)]
    pictures = Pictures([], [None] * count, [], copies, [], Pairs.empty(), [])
    detection = Detection(findings, pictures, [image.image_id for image in images])
    return Examined(images, inspected, labels, matched, LABEL_SETS["kaggle9"], detection)


def fates(examined: Examined, **policies: str) -> Fates:
    return apply_policies(examined, Policies.model_validate(policies))


def test_an_image_leaves_for_the_first_reason_alone() -> None:
    found = {"exact_duplicate": [Case((0, 1), "same")], "label_conflict": [Case((0, 1), "two labels")]}
    assert fates(source(found, [MEL, NV])).finding == ["label_conflict", "label_conflict"]


def test_a_label_stays_doubtful_when_the_other_image_of_the_picture_has_left() -> None:
    found = {"wrong_type": [Case((1,), "PNG")], "label_conflict": [Case((0, 1), "two labels")]}
    assert fates(source(found, [NV, MEL]), wrong_type="drop").finding == ["label_conflict", "wrong_type"]
    with pytest.raises(DataError, match="two labels"):
        fates(source(found, [NV, MEL]), wrong_type="drop", label_conflict="fail")
    # It allows both labels, that of the one which has left as well.
    coarse = source(found, [SK, "pigmented benign keratosis"], reference=["BKL", "BKL"])
    assert fates(coarse, wrong_type="drop", label_conflict="relabel").usable() == []


def test_of_duplicates_the_one_held_out_stays_then_the_largest_then_the_first() -> None:
    found = {"exact_duplicate": [Case((0, 1, 2), "same")]}
    assert fates(source(found, [MEL] * 3, splits=["train", "test", "train"])).usable() == [1]
    assert fates(source(found, [MEL] * 3, widths=[100, 100, 200])).usable() == [2]
    assert fates(source(found, [MEL] * 3)).usable() == [0]


def test_of_copies_the_parent_stays_wherever_it_lies() -> None:
    found = {"augmented_copy": [Case((0, 1), "made from i1")]}
    examined = source(found, [MEL] * 2, splits=["test", "train"], parents=["i1", "i1"])
    assert fates(examined).usable() == [1]


def test_one_copy_stays_where_there_is_no_parent() -> None:
    found = {"augmented_copy": [Case((0, 1), "made from gone")]}
    assert fates(source(found, [MEL] * 2, parents=["gone", "gone"])).usable() == [0]


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


SEVERAL = ("label_conflict", "split_leak", "augmented_copy", "exact_duplicate", "near_duplicate")


# Too small a class is found after splitting.
@pytest.mark.parametrize("finding", [k for k in KINDS if k != "small_class"])
def test_fail_stops_and_names_the_images(finding: str) -> None:
    cases = [Case((p, (p + 1) % 5) if finding in SEVERAL else (p,), "seen") for p in range(5)]
    examined = source(
        {finding: cases},
        [MEL, NV] * 2 + [MEL] if finding == "label_conflict" else [MEL] * 5,
        reference=["BCC"] * 5,
        splits=["train", "test"] * 2 + ["val"],
        parents=["gone"] * 5,
    )
    with pytest.raises(DataError, match=rf"i0 \(seen\), i1 .*and 2 more.*policies.{finding}=fail"):
        fates(examined, **{finding: "fail"})


@pytest.mark.parametrize("finding", [k for k in KINDS if "keep" in str(Policies.model_fields[k].annotation)])
def test_keep_leaves_every_image(finding: str) -> None:
    found = {finding: [Case((0, 1), "seen")]}
    assert fates(source(found, [MEL, NV]), **{finding: "keep"}).usable() == [0, 1]


cases = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True), max_size=4)


@settings(deadline=None)
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


def read(images: list[SourceImage], digests: list[str], reference: dict[str, str] | None = None) -> Examined:
    """Return images as if their files had been read: each a digest, `broken` for one that cannot be decoded."""
    inspected = [Inspected(d, "" if d == "broken" else "JPEG", 9, 9, "", "", None, None) for d in digests]
    known = {name: SourceImage(name, None, label) for name, label in (reference or {}).items()}
    return assess(images, inspected, LABEL_SETS["kaggle9"], known)


def image(name: str, label: str, split: str | None = None, lesion: str | None = None, folder: str = "") -> SourceImage:
    return SourceImage(f"{folder}{name}", f"/{folder}{name}.jpg", label, lesion, official_split=split)


@settings(deadline=None)
@given(lesions=ids, patients=ids, sha256=digests, splits=official)
def test_what_default_policies_leave_passes_the_gate(
    lesions: list[str | None], patients: list[str | None], sha256: list[str], splits: list[str]
) -> None:
    images = [
        SourceImage(f"i{p}", f"/i{p}.jpg", MEL, lesion_id=lesions[p], patient_id=patients[p], official_split=splits[p])
        for p in range(9)
    ]
    examined = read(images, sha256)
    kept = fates(examined).usable()
    bonds = {"lesion": lesions, "patient": patients, "file": sha256, "group": examined.detection.groups}
    assert kept
    assert crossings({b: [column[p] for p in kept] for b, column in bonds.items()}, [splits[p] for p in kept]) == []


def test_copies_of_a_contested_parent_go_with_it() -> None:
    images = [image("a", MEL), image("a_rot90", MEL), image("b", NV), image("b_flip", NV)]
    assert fates(read(images, ["same", "1", "same", "2"])).finding == ["label_conflict"] * 4


def test_what_may_be_a_close_up_stays_in_the_group_of_its_overview() -> None:
    images = [image("case12", NV, "test"), image("case12_zoom", NV, "test"), image("case12_rot90", NV, "test")]
    examined = read(images[:2], ["1", "2"])
    assert examined.detection.groups == ["case12"] * 2
    assert fates(examined).finding == [None, None]
    assert not examined.detection.findings["augmented_copy"]
    # Beside what a program wrote it is taken for that program's, too.
    assert fates(read(images, ["1", "2", "3"])).finding == [None, "augmented_copy", "augmented_copy"]


def test_what_was_relabelled_contradicts_the_reference_no_more() -> None:
    examined = read([image("a", MEL), image("b", NV)], ["same", "same"], {"a": "BCC", "b": "BCC"})
    decided = fates(examined, label_conflict="relabel")
    assert (decided.classes, decided.finding) == (["basal cell carcinoma"] * 2, [None, "exact_duplicate"])


def test_a_reference_holds_for_a_copy_under_another_name() -> None:
    examined = read([image("known", NV), image("renamed", NV)], ["same", "same"], {"known": "MEL"})
    assert fates(examined).finding == ["reference_contradiction"] * 2
    assert fates(examined, reference_contradiction="relabel").classes == [MEL, MEL]


@pytest.mark.parametrize("field", ["lesion_id", "patient_id"])
def test_what_only_the_reference_puts_together_is_one_group(field: str) -> None:
    # The source has an id of its own for one of the two, and the reference another for both.
    images = [SourceImage("a", "/a.jpg", NV, **{field: "own"}, official_split="train"), image("b", NV, "test")]
    inspected = [Inspected(d, "JPEG", 9, 9, "", "", None, None) for d in "12"]
    known = {name: SourceImage(name, None, NV, **{field: "other"}) for name in "ab"}
    examined = assess(images, inspected, LABEL_SETS["kaggle9"], known)
    assert examined.detection.groups == ["a", "a"]
    leak = f"reference {field.removesuffix('_id')} other: b in test, a in train"
    assert [case.detail for case in examined.detection.findings["split_leak"]] == [leak]
    assert fates(examined).usable() == [1]


def test_a_reference_that_contradicts_itself_settles_nothing() -> None:
    examined = read([image("a", MEL), image("b", NV)], ["same", "same"], {"a": "MEL", "b": "NV"})
    assert fates(examined, label_conflict="relabel").finding == ["label_conflict"] * 2


def test_a_reference_does_not_settle_what_it_merely_allows() -> None:
    # Two classes of this set are benign keratoses; which one it is, the reference does not know.
    examined = read([image("a", NV)], ["1"], {"a": "BKL"})
    assert fates(examined, reference_contradiction="relabel").finding == ["reference_contradiction"]


def test_files_that_are_no_pictures_bind_nothing() -> None:
    images = [image("a", MEL, "train", "L1"), image("b", NV, "test", "L2"), image("good", MEL, "train", "L1")]
    images.append(image("kept", NV, "test", "L2"))
    examined = read(images, ["broken", "broken", "1", "2"])
    assert not examined.detection.findings["label_conflict"]
    assert fates(examined).usable() == [0, 1, 2, 3]


def test_a_conflict_that_is_kept_keeps_one_image_of_each_label() -> None:
    examined = read([image("a", MEL), image("b", NV), image("c", NV)], ["same"] * 3)
    assert fates(examined, label_conflict="keep").usable() == [0, 1]


def test_an_image_that_only_shares_the_parents_name_is_no_copy() -> None:
    images = [image("1", NV, "train", folder="Train/"), image("1", NV, "test", folder="Test/")]
    images.append(image("1_rot90", NV, "train", folder="Train/"))
    decided = fates(read(images, ["1", "2", "3"]), split_leak="keep")
    assert decided.finding == [None, None, "augmented_copy"]


def test_fail_does_not_stop_for_what_another_policy_has_mended() -> None:
    images = [image("a", NV, "train"), image("b", NV, "test")]
    assert fates(read(images, ["same", "same"]), split_leak="fail").usable() == [1]
