import json

import pytest

from dermaray.errors import LabelError
from dermaray.labels import ALIASES, LABEL_SETS, LabelSet, diagnosis_code, find_label_set

HAM10000_CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


@pytest.mark.parametrize(
    ("spelling", "code"),
    [
        ("melanoma", "MEL"),
        ("MEL", "MEL"),
        ("Melanocytic nevi", "NV"),
        ("naevus", "NV"),
        ("Basal_Cell  carcinoma", "BCC"),
        ("pigmented benign keratosis", "PBK"),
        ("Benign keratosis-like lesion", "BKL"),
        (" vascular lesion ", "VASC"),
        ("freckle", None),
        ("", None),
    ],
)
def test_a_spelling_has_one_code(spelling: str, code: str | None) -> None:
    assert diagnosis_code(spelling) == code


def test_no_spelling_has_two_codes() -> None:
    spellings = [alias for aliases in ALIASES.values() for alias in aliases]
    assert len(spellings) == len(set(spellings))
    assert all(diagnosis_code(alias) == code for code, aliases in ALIASES.items() for alias in aliases)


@pytest.mark.parametrize(
    ("name", "classes", "malignant", "melanoma"),
    [
        (
            "kaggle9",
            "actinic keratosis, basal cell carcinoma, dermatofibroma, melanoma, nevus, pigmented benign keratosis, "
            "seborrheic keratosis, squamous cell carcinoma, vascular lesion",
            {"basal cell carcinoma", "melanoma", "squamous cell carcinoma"},
            "melanoma",
        ),
        ("isic2018", "MEL, NV, BCC, AKIEC, BKL, DF, VASC", {"MEL", "BCC"}, "MEL"),
        ("isic2019", "MEL, NV, BCC, AK, BKL, DF, VASC, SCC", {"MEL", "BCC", "SCC"}, "MEL"),
    ],
)
def test_the_published_sets(name: str, classes: str, malignant: set[str], melanoma: str) -> None:
    label_set = LABEL_SETS[name]
    assert ", ".join(label_set.classes) == classes
    assert label_set.malignant == malignant
    assert label_set.melanoma == melanoma
    assert label_set.classes[label_set.melanoma_index or 0] == melanoma


@pytest.mark.parametrize(
    ("name", "label", "resolved"),
    [
        ("kaggle9", "Melanocytic_Nevus", "nevus"),
        ("kaggle9", "scc", "squamous cell carcinoma"),
        ("isic2018", "actinic keratosis", "AKIEC"),
        ("isic2018", "seborrheic keratosis", "BKL"),
        ("isic2019", "akiec", "AK"),
        ("isic2019", "pigmented benign keratosis", "BKL"),
        ("isic2019", "squamous cell carcinoma", "SCC"),
    ],
)
def test_a_set_files_every_spelling_of_its_diagnoses(name: str, label: str, resolved: str) -> None:
    assert LABEL_SETS[name].resolve(label) == resolved


def test_isic2018_has_no_place_for_squamous_cell_carcinoma() -> None:
    with pytest.raises(LabelError, match=r"'squamous cell carcinoma' is unknown to isic2018. It knows: MEL, NV, "):
        LABEL_SETS["isic2018"].resolve("squamous cell carcinoma")


def test_an_index_is_the_position_among_the_outputs() -> None:
    label_set = LABEL_SETS["isic2019"]
    assert [label_set.index(name) for name in label_set.classes] == list(range(8))
    with pytest.raises(LabelError, match=r"'nevus' is no class of isic2019. Its classes: MEL, NV"):
        label_set.index("nevus")


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (LABEL_SETS["kaggle9"].classes, "kaggle9"),
        (("melanoma", "nevus"), "kaggle9"),
        (HAM10000_CODES, "isic2018"),
        (("MEL", "NV", "SCC", "AK"), "isic2019"),
    ],
)
def test_the_set_that_fits_is_found(labels: tuple[str, ...], name: str) -> None:
    assert find_label_set(labels) is LABEL_SETS[name]
    assert find_label_set(reversed(labels)) is LABEL_SETS[name]


def test_unknown_names_become_a_set_of_their_own() -> None:
    found = find_label_set(["nevus", "Melanoma", "Freckle", "BCC", "nevus"])
    assert found == LabelSet(
        "custom", ("BCC", "Freckle", "Melanoma", "nevus"), frozenset({"BCC", "Melanoma"}), "Melanoma"
    )
    assert found.melanoma_index == 2
    assert found.resolve("melanoma") == "Melanoma"


def test_a_set_without_melanoma_says_so() -> None:
    found = find_label_set(["wart", "freckle"])
    assert found.melanoma is None
    assert found.melanoma_index is None
    assert not found.malignant


def test_a_named_set_must_know_every_label() -> None:
    assert find_label_set(["nevus"], "isic2019") is LABEL_SETS["isic2019"]
    with pytest.raises(LabelError, match=r"label 'freckle' is unknown to isic2019. It knows: MEL, NV, BCC, AK, BKL"):
        find_label_set(["nevus", "freckle"], "isic2019")
    with pytest.raises(LabelError, match=r"'isic2020' is unknown. Known: kaggle9, isic2018, isic2019"):
        find_label_set(["nevus"], "isic2020")


@pytest.mark.parametrize(
    "label_set", [*LABEL_SETS.values(), find_label_set(["melanoma", "wart"])], ids=lambda s: s.name
)
def test_a_set_survives_json(label_set: LabelSet) -> None:
    read = LabelSet.from_dict(json.loads(json.dumps(label_set.to_dict())))
    assert read == label_set
    assert read.resolve("Melanoma") == label_set.melanoma


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "needs name, classes, malignant and melanoma. Received:"),
        ({"malignant": ["b"]}, r"must name classes. Received: \['b'\]"),
        ({"melanoma": "c"}, r"must name classes. Received: \['c'\]"),
    ],
)
def test_a_damaged_description_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        LabelSet.from_dict({**LabelSet("custom", ("a",)).to_dict(), **change})


def test_a_missing_key_is_refused() -> None:
    with pytest.raises(LabelError, match="needs name, classes, malignant and melanoma"):
        LabelSet.from_dict({"name": "custom", "classes": ["a"]})


def test_a_class_cannot_have_the_name_of_a_column() -> None:
    with pytest.raises(LabelError, match="'status'"):
        find_label_set(["status", "other"])
