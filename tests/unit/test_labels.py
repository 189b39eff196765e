import json

import pytest

from dermaray.errors import LabelError
from dermaray.labels import ALIASES, LABEL_SETS, LabelSet, agree, diagnosis_code, find_label_set

LENTIGINES_AND_LICHENOID = ("solar lentigo", "lentigo NOS", "lichenoid keratosis", "Lichen planus like keratosis")
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
        ("Melanoma, NOS", "MEL"),
        ("Malignant melanocytic proliferations (Melanoma)", "MEL"),
        ("Benign soft tissue proliferations - Vascular", "VASC"),
        ("Squamous cell carcinoma, Invasive", "SCC"),
        ("Bowen's disease", "SCCIS"),
        ("Café-au-lait macule", "CALM"),
        ("lentigo NOS", "LNOS"),
        # None of these is of melanocytes.
        ("epidermal nevus", None),
        ("nevus sebaceus", None),
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


def test_every_code_that_a_set_files_has_spellings() -> None:
    assert {code for s in LABEL_SETS.values() for code in s.class_of_code} <= set(ALIASES)


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
        ("isic2016", "benign, malignant", {"malignant"}, "malignant"),
        ("isic2017", "melanoma, seborrheic keratosis, nevus", {"melanoma"}, "melanoma"),
        ("isic2020", "benign, melanoma", {"melanoma"}, "melanoma"),
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
        ("isic2018", "Squamous cell carcinoma in situ", "AKIEC"),
        ("isic2019", "Squamous cell carcinoma in situ", "SCC"),
        *((name, label, "BKL") for name in ("isic2018", "isic2019") for label in LENTIGINES_AND_LICHENOID),
        ("isic2019", "Melanoma metastasis", "MEL"),
        ("isic2016", "melanoma", "malignant"),
        ("isic2020", "malignant", "melanoma"),
        ("isic2020", "cafe-au-lait macule", "benign"),
        ("isic2017", "seborrheic_keratosis", "seborrheic keratosis"),
    ],
)
def test_a_set_files_every_spelling_of_its_diagnoses(name: str, label: str, resolved: str) -> None:
    assert LABEL_SETS[name].resolve(label) == resolved


def test_isic2018_has_no_place_for_squamous_cell_carcinoma() -> None:
    with pytest.raises(LabelError, match=r"'squamous cell carcinoma' is unknown to isic2018. It knows: MEL, NV, "):
        LABEL_SETS["isic2018"].resolve("squamous cell carcinoma")


@pytest.mark.parametrize("name", ["kaggle9", "isic2017", "isic2018", "isic2019"])
@pytest.mark.parametrize("label", ["benign", "malignant", "cafe-au-lait macule", "AIMP", "lentigo simplex"])
def test_a_set_of_diagnoses_has_no_place_for_what_is_none_of_them(name: str, label: str) -> None:
    with pytest.raises(LabelError, match=f"'{label}' is unknown to {name}. It knows: "):
        LABEL_SETS[name].resolve(label)


@pytest.mark.parametrize("name", ["isic2016", "isic2020"])
@pytest.mark.parametrize("label", ["basal cell carcinoma", "actinic keratosis", "atypical melanocytic proliferation"])
def test_what_is_neither_melanoma_nor_surely_benign_has_no_place_among_the_two(name: str, label: str) -> None:
    with pytest.raises(LabelError, match="is unknown to"):
        LABEL_SETS[name].resolve(label)


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
        (("benign", "malignant"), "isic2016"),
        (("benign", "melanoma"), "isic2020"),
        (("melanoma", "seborrheic_keratosis", "nevus"), "isic2017"),
        (("melanoma", "nevus", "seborrheic keratosis", "vascular lesion"), "kaggle9"),
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


@pytest.mark.parametrize(
    "labels", [("benign", "nevus", "melanoma"), ("malignant", "nevus"), ("MEL", "NV", "cafe-au-lait macule")]
)
def test_diagnoses_are_merged_into_benign_only_by_request(labels: tuple[str, ...]) -> None:
    assert find_label_set(labels).name == "custom"
    assert find_label_set(labels, "isic2020") is LABEL_SETS["isic2020"]


def test_of_two_classes_that_are_melanoma_neither_is_the_melanoma_class() -> None:
    found = find_label_set(["melanoma in situ", "melanoma invasive", "wart"])
    assert found.melanoma is None
    assert found.malignant == {"melanoma in situ", "melanoma invasive"}


def test_a_set_without_melanoma_says_so() -> None:
    found = find_label_set(["wart", "freckle"])
    assert found.melanoma is None
    assert found.melanoma_index is None
    assert not found.malignant


def test_a_named_set_must_know_every_label() -> None:
    assert find_label_set(["nevus"], "isic2019") is LABEL_SETS["isic2019"]
    with pytest.raises(LabelError, match=r"label 'freckle' is unknown to isic2019. It knows: MEL, NV, BCC, AK, BKL"):
        find_label_set(["nevus", "freckle"], "isic2019")
    with pytest.raises(LabelError, match=r"'isic2021' is unknown. Known: kaggle9, isic2018, isic2019"):
        find_label_set(["nevus"], "isic2021")


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


@pytest.mark.parametrize(
    ("label", "reference", "verdict"),
    [
        ("seborrheic keratosis", "BKL", True),
        ("pigmented benign keratosis", "BKL", True),
        ("solar lentigo", "BKL", True),
        ("nevus", "NV", True),
        ("Melanoma in situ", "MEL", True),
        ("akiec", "AK", True),
        # HAM10000 counts intraepithelial carcinoma as akiec, ISIC 2019 as SCC.
        ("akiec", "SCC", True),
        ("actinic keratosis", "SCC", False),
        ("malignant", "BCC", True),
        ("benign", "BCC", False),
        ("benign", "NV", True),
        ("benign", "malignant", False),
        ("melanoma", "BKL", False),
        ("nevus", "AK", False),
        ("benign", "AK", None),
        ("benign", "akiec", None),
        ("nevus", "lentigo simplex", None),
        ("custom thing", "MEL", None),
        ("Custom thing", "custom_thing", True),
        ("custom thing", "another", None),
        ("atypical melanocytic proliferation", "MEL", None),
        ("AIMP", "atypical melanocytic proliferation", True),
        ("indeterminate", "benign", None),
    ],
)
def test_whether_two_labels_can_both_be_right(label: str, reference: str, verdict: bool | None) -> None:
    assert agree(label, reference) is verdict
    assert agree(reference, label) is verdict


@pytest.mark.parametrize("name", ["isic2018", "isic2019"])
def test_the_classes_of_a_set_contradict_each_other_and_agree_with_all_that_they_file(name: str) -> None:
    label_set = LABEL_SETS[name]
    for code, cls in label_set.class_of_code.items():
        assert agree(ALIASES[code][0], cls) is True
    for one in label_set.classes:
        assert [other for other in label_set.classes if agree(one, other) is not False] == [one]


def test_spellings_of_a_custom_class_are_one_class() -> None:
    custom = find_label_set(["Melanoma", "melanoma", "foo"])
    assert (custom.classes, custom.melanoma) == (("Melanoma", "foo"), "Melanoma")
    assert custom.resolve("melanoma") == "Melanoma"
