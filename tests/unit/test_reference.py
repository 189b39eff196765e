"""The CSVs of the ISIC challenges and of the ISIC archive, as sources and as references."""

from pathlib import Path

import pytest
from PIL import Image

from dermaray.data.formats import read_reference, read_source
from dermaray.data.source import SourceImage
from dermaray.errors import DataError

TRUTH_2019 = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
METADATA_2019 = "image,age_approx,anatom_site_general,lesion_id,sex,diagnosis,benign_malignant,target\n"
TRUTH_2020 = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\n"


def put(root: Path, name: str, text: str = "") -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if text:
        path.write_text(text, encoding="utf-8")
    else:
        Image.new("RGB", (8, 6)).save(path)
    return str(path)


def labels_of(*paths: str) -> dict[str, str | None]:
    return {image_id: image.label for image_id, image in read_reference(paths).items()}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("ISIC_0000000,benign\nISIC_0000002,malignant\n", ["benign", "malignant"]),
        ("ISIC_0000003,0.0\nISIC_0000012,1.0\n", ["benign", "malignant"]),
        (
            "image_id,melanoma,seborrheic_keratosis\nISIC_1,1.0,0.0\nISIC_2,0.0,1.0\nISIC_3,0.0,0.0\n",
            ["melanoma", "seborrheic_keratosis", "nevus"],
        ),
        (
            "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_1,0.0,1.0,0.0,0.0,0.0,0.0,0.0\nISIC_2,0,0,0,1,0,0,0\n",
            ["NV", "AKIEC"],
        ),
        (f"{TRUTH_2019}a,0,0,0,0,0,0,0,1,0\nb,0,0,0,0,0,0,0,0,1\nc,0,0,0,0,0,0,0,0,0\n", ["SCC", None, None]),
        # The test set's, with its weights.
        ("image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK,score_weight\na,0,1,0,0,0,0,0,0,0,0.5\n", ["NV"]),
        (
            f"{TRUTH_2020}a,IP_1,male,45.0,head/neck,unknown,benign,0\nb,IP_1,male,45.0,torso,melanoma,malignant,1\n",
            ["benign", "melanoma"],
        ),
        ("image_name,patient_id,target\na,IP_1,0\nb,IP_2,1\n", ["benign", "melanoma"]),
        ("isic_id,diagnosis,benign_malignant\na,nevus,benign\nb,,malignant\nc,,\n", ["nevus", "malignant", None]),
    ],
)
def test_every_ground_truth_gives_labels(text: str, labels: list[str | None], tmp_path: Path) -> None:
    assert list(labels_of(put(tmp_path, "truth.csv", text)).values()) == labels


@pytest.mark.parametrize(
    ("diagnoses", "label"),
    [
        ('Benign,Benign melanocytic proliferations,Nevus,"Nevus, NOS, Junctional",', "Nevus"),
        ('Benign,Benign melanocytic proliferations,Nevus,Blue nevus,"Blue nevus, Common"', "Blue nevus"),
        ('Malignant,Malignant melanocytic proliferations (Melanoma),"Melanoma, NOS",,', "Melanoma, NOS"),
        (
            "Benign,Benign soft tissue proliferations - Vascular,,,",
            "Benign soft tissue proliferations - Vascular",
        ),
        ("Benign,Benign soft tissue proliferations - Fibro-histiocytic,Scar,,", "Scar"),
        ("Malignant,Malignant neural proliferations,Merkel cell carcinoma,,", "Merkel cell carcinoma"),
        ("Benign,,,,", "Benign"),
        (",Something else,Not heard of,,", "Not heard of"),
        (",,,,", None),
    ],
)
def test_the_archives_label_is_the_most_specific_that_is_known(diagnoses: str, label: str, tmp_path: Path) -> None:
    header = "isic_id,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,diagnosis_5\n"
    assert labels_of(put(tmp_path, "metadata.csv", f"{header}ISIC_1,{diagnoses}\n")) == {"ISIC_1": label}


def test_a_download_of_the_archive_is_a_source(tmp_path: Path) -> None:
    header = "isic_id,attribution,age_approx,anatom_site_general,diagnosis_1,diagnosis_3,lesion_id,patient_id,sex\n"
    put(tmp_path, "metadata.csv", f"{header}ISIC_1,somebody,55,head/neck,Benign,Nevus,IL_1,IP_1,female\n")
    image = put(tmp_path, "ISIC_1.jpg")
    assert read_source(tmp_path) == [
        SourceImage("ISIC_1", image, "Nevus", "IL_1", "IP_1", age=55.0, sex="female", site="head/neck")
    ]


def test_ground_truth_and_metadata_are_joined_by_id(tmp_path: Path) -> None:
    put(tmp_path, "A_Metadata.csv", f"{METADATA_2019}ISIC_1,55,anterior torso,BCN_1,female,,,0\nISIC_2,,,,,,,0\n")
    put(tmp_path, "B_GroundTruth.csv", f"{TRUTH_2019}ISIC_1,0,1,0,0,0,0,0,0,0\nISIC_2,1,0,0,0,0,0,0,0,0\n")
    images = [put(tmp_path, f"ISIC_2019_Training_Input/ISIC_{n}.jpg") for n in (1, 2)]
    assert read_source(tmp_path) == [
        SourceImage("ISIC_1", images[0], "NV", "BCN_1", age=55.0, sex="female", site="anterior torso"),
        SourceImage("ISIC_2", images[1], "MEL"),
    ]


def test_what_the_ground_truth_says_comes_before_metadata(tmp_path: Path) -> None:
    metadata = put(tmp_path, "A.csv", "image_name,patient_id,sex,age_approx\nISIC_1,IP_9,male,80\n")
    truth = put(tmp_path, "B.csv", f"{TRUTH_2020}ISIC_1,IP_1,,45.0,torso,nevus,benign,0\n")
    assert read_reference([metadata, truth]) == {
        "ISIC_1": SourceImage("ISIC_1", None, "benign", patient_id="IP_1", age=45.0, sex="male", site="torso")
    }


def test_a_lesion_that_two_csvs_name_differently_has_one_name(tmp_path: Path) -> None:
    put(tmp_path, "ham.csv", "lesion_id,image_id,dx\nHAM_1,A,nv\n,B,nv\nHAM_2,C,nv\nHAM_3,D,nv\n,E,nv\n")
    put(tmp_path, "archive.csv", "isic_id,lesion_id,patient_id\nA,IL_9,IP_1\nB,IL_9,IP_1\nC,IL_9,IP_2\nD,IL_8,IP_2\n")
    for name in "ABCDE":
        put(tmp_path, f"{name}.jpg")
    images = read_source(tmp_path)
    assert [image.lesion_id for image in images] == ["HAM_1", "HAM_1", "HAM_1", "HAM_3", None]
    assert [image.patient_id for image in images] == ["IP_1", "IP_1", "IP_2", "IP_2", None]


def test_ids_that_two_csvs_use_for_different_lesions_join_none(tmp_path: Path) -> None:
    first = put(tmp_path, "a.csv", "lesion_id,image_id,dx\n1,A,nv\n2,B,nv\n3,C,nv\n")
    second = put(tmp_path, "b.csv", "lesion_id,image_id\n2,A\n3,B\n1,C\n")
    assert [image.lesion_id for image in read_reference([first, second]).values()] == ["1", "2", "3"]


def test_the_lesions_of_2018_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    truth = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_1,0,1,0,0,0,0,0\n"
    put(tmp_path, "ISIC2018_Task3_Training_GroundTruth/truth.csv", truth)
    put(tmp_path, "groupings.csv", "image,lesion_id,diagnosis_confirm_type\nISIC_1,HAM_1,histopathology\n")
    image = put(tmp_path, "ISIC2018_Task3_Training_Input/ISIC_1.jpg")
    assert read_source(tmp_path) == [SourceImage("ISIC_1", image, "NV", "HAM_1")]


def test_patients_of_2020_are_kept(tmp_path: Path) -> None:
    put(tmp_path, "truth.csv", f"{TRUTH_2020}ISIC_1,IP_1,NA,45.0,head/neck,unknown,benign,0\n")
    image = put(tmp_path, "train/ISIC_1.jpg")
    assert read_source(tmp_path) == [
        SourceImage("ISIC_1", image, "benign", patient_id="IP_1", age=45.0, site="head/neck")
    ]


def test_a_downsampled_file_belongs_to_the_row_of_its_name_or_else_of_its_original(tmp_path: Path) -> None:
    rows = "".join(f"{name},0,1,0,0,0,0,0,0,0\n" for name in ("ISIC_1", "ISIC_2_downsampled", "ISIC_3"))
    put(tmp_path, "truth.csv", TRUTH_2019 + rows)
    names = ("ISIC_1_downsampled", "ISIC_2_downsampled", "ISIC_3", "ISIC_3_downsampled")
    files = {name: put(tmp_path, f"images/{name}.jpg") for name in names}
    assert [(image.image_id, image.uri, image.label) for image in read_source(tmp_path)] == [
        ("ISIC_1", files["ISIC_1_downsampled"], "NV"),
        ("ISIC_2_downsampled", files["ISIC_2_downsampled"], "NV"),
        ("ISIC_3", files["ISIC_3"], "NV"),
        ("ISIC_3_downsampled", files["ISIC_3_downsampled"], None),
    ]


def test_metadata_beside_class_folders_adds_to_them(tmp_path: Path) -> None:
    put(tmp_path, "metadata.csv", f"{METADATA_2019}ISIC_1,55,anterior torso,BCN_1,female,,,0\n")
    image, other = put(tmp_path, "nevus/ISIC_1.jpg"), put(tmp_path, "melanoma/ISIC_2.jpg")
    assert read_source(tmp_path) == [
        SourceImage("ISIC_1", image, "nevus", "BCN_1", age=55.0, sex="female", site="anterior torso"),
        SourceImage("ISIC_2", other, "melanoma"),
    ]


def test_metadata_without_ground_truth_is_no_source(tmp_path: Path) -> None:
    put(tmp_path, "metadata.csv", f"{METADATA_2019}ISIC_1,55,anterior torso,BCN_1,female,,,0\n")
    put(tmp_path, "ISIC_2019_Training_Input/ISIC_1.jpg")
    with pytest.raises(DataError, match=r"metadata.csv gives no labels, and no other CSV does"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{TRUTH_2019}a,0,1,0,0,0,0,0,0,0\nb,1,1,0,0,0,0,0,0,0\n", "line 3: an image is of one class. .*MEL and NV"),
        (f"{TRUTH_2019}a,0,0.7,0.3,0,0,0,0,0,0\n", "line 2: NV is 0 or 1. Received: '0.7'"),
        (f"{TRUTH_2019},0,1,0,0,0,0,0,0,0\n", "line 2: no image is named"),
        (f"{TRUTH_2019}a,0,1\n", "line 2: not as many values"),
        ("image_id,melanoma,seborrheic_keratosis\na,1,1\n", "line 2: an image is of one class"),
        (f"{TRUTH_2020}a,IP_1,male,45.0,torso,nevus,benign,1\n", "line 2: benign_malignant and target contradict"),
        (f"{TRUTH_2020}a,IP_1,male,45.0,torso,nevus,perhaps,\n", "line 2: benign_malignant is benign or malignant"),
        ("ISIC_0000000,benign\nISIC_0000002,maybe\n", "line 2: malignant is benign or malignant"),
        ("ISIC_0000000,benign\nISIC_0000000,malignant\n", "line 2: ISIC_0000000 is in the file twice"),
        ("image,malignant\na,b\n", "holds no CSV of a known kind"),
        ("image,filter\na,b\n", "holds no CSV of a known kind. Known are HAM10000's, the ISIC"),
    ],
)
def test_a_csv_that_cannot_be_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_reference([put(tmp_path, "truth.csv", text)])
    assert "truth.csv" in str(error.value)


def test_a_reference_joins_files_and_folders(tmp_path: Path) -> None:
    put(tmp_path, "isic2019/ISIC_2019_Training_GroundTruth.csv", f"{TRUTH_2019}ISIC_1,0,0,0,0,0,0,0,1,0\n")
    put(tmp_path, "isic2019/notes.csv", "a,b\n1,2\n")
    ham = put(tmp_path, "HAM10000_metadata.csv", "lesion_id,image_id,dx,age\nHAM_1,ISIC_1,akiec,70\nHAM_2,ISIC_2,nv,\n")
    assert read_reference([str(tmp_path / "isic2019"), ham]) == {
        "ISIC_1": SourceImage("ISIC_1", None, "SCC", "HAM_1", age=70.0),
        "ISIC_2": SourceImage("ISIC_2", None, "nv", "HAM_2"),
    }


@pytest.mark.parametrize(("first", "second"), [("mel", "NV"), ("wart", "freckle")])
def test_references_that_contradict_each_other_are_refused(first: str, second: str, tmp_path: Path) -> None:
    paths = [put(tmp_path, f"{label}.csv", f"image_id,dx\nISIC_1,{label}\n") for label in (first, second)]
    with pytest.raises(DataError, match=rf"ISIC_1 is {first} in .*{first}.csv and {second} in .*{second}.csv"):
        read_reference(paths)


def test_a_reference_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv cannot be read: No such file"):
        read_reference([str(tmp_path / "none.csv")])
    with pytest.raises(DataError, match=r"none does not exist\. A CSV"):
        read_reference([str(tmp_path / "none")])
    with pytest.raises(DataError, match=r"holds no CSV of a known kind"):
        read_reference([str(tmp_path)])
