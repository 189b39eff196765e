"""Odd sources: a CSV or folders that would be misread stop the job, and what belongs together is put together."""

from pathlib import Path

import pytest
from PIL import Image

from dermaray.data.classes import check_classes, merged_labels
from dermaray.data.copies import are_copies, parents_of
from dermaray.data.formats import read_source
from dermaray.data.inspect import Inspected
from dermaray.data.pictures import find_pictures
from dermaray.data.settings import PrepareConfig
from dermaray.data.source import SourceImage
from dermaray.errors import DataError, LabelError
from dermaray.labels import find_label_set

HAM = "image_id,lesion_id,dx\nI1,L1,mel\nI2,L1,mel\nI3,L2,nv\n"
LESIONS = HAM.replace(",dx", "").replace(",mel", "").replace(",nv", "")
FOLDERS = ("melanoma/I1.jpg", "melanoma/I2.jpg", "nevus/I3.jpg")
PARTS = ("HAM10000_images_part_1/I1.jpg", "HAM10000_images_part_2/I2.jpg", "HAM10000_images_part_2/I3.jpg")


def source(root: Path, images: tuple[str, ...], table: str | bytes | None = None) -> Path:
    for name in images:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
    if table is not None:
        (root / "metadata.csv").write_bytes(table.encode() if isinstance(table, str) else table)
    return root


def lesions(root: Path) -> list[str | None]:
    return [image.lesion_id for image in read_source(root)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (HAM.replace(",", ";"), "metadata.csv: values are separated by semicolons. Commas were expected"),
        (HAM.replace(",", "\t"), "metadata.csv: values are separated by tabs. Commas were expected"),
        (HAM.encode("utf-16"), "metadata.csv is UTF-16. A CSV in UTF-8 was expected"),
        ("image_id,lesion_id,dx,lesion_id\nI1,L1,mel,\n", "metadata.csv has the column lesion_id twice"),
        ("image,MEL,NV,BCC,MEL\nI1,1,0,0,0\n", "metadata.csv has the column MEL twice"),
        ("img_id,diagnostic\nI1,mel\n", "Received: HAM10000_images_part_1, which is called like a part of a data set"),
    ],
)
def test_a_table_that_would_be_passed_over_makes_no_classes_of_folders(
    table: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_source(source(tmp_path, PARTS, table))


@pytest.mark.parametrize(
    "table",
    [
        HAM.replace("image_id", "Image_ID").replace("lesion_id", "Lesion_ID").replace("dx", "DX"),
        "\n" + HAM,
        HAM.replace("I1", "I1.jpg").replace("I2", "I2.JPG"),
    ],
)
def test_a_table_is_known_by_its_columns_however_they_are_written(table: str, tmp_path: Path) -> None:
    found = read_source(source(tmp_path, PARTS, table))
    assert [(image.image_id, image.label, image.lesion_id) for image in found] == [
        ("I1", "mel", "L1"),
        ("I2", "mel", "L1"),
        ("I3", "nv", "L2"),
    ]


def test_columns_that_are_unknown_may_be_called_anything(tmp_path: Path) -> None:
    table = 'image_id,lesion_id,"remarks; free text"\nI1,L1,\nI2,L1,\nI3,L2,\n'
    assert lesions(source(tmp_path, FOLDERS, table)) == ["L1", "L1", "L2"]


def test_a_class_may_be_called_like_a_part_beside_a_diagnosis(tmp_path: Path) -> None:
    found = read_source(source(tmp_path, ("nevus/I1.jpg", "stage part 1/I2.jpg")))
    assert [image.label for image in found] == ["nevus", "stage part 1"]


@pytest.mark.parametrize("classes", [("high_risk", "low_risk"), ("0", "1")])
def test_folders_that_recur_in_splits_are_classes_whatever_a_table_says(
    classes: tuple[str, str], tmp_path: Path
) -> None:
    one, other = classes
    images = (f"Train/{one}/I1.jpg", f"Train/{other}/I2.jpg", f"Test/{one}/I3.jpg", f"Test/{other}/I4.jpg")
    found = read_source(source(tmp_path, images, HAM))
    assert [(image.label, image.lesion_id) for image in found] == [
        (one, "L1"),
        (other, "L1"),
        (one, "L2"),
        (other, None),
    ]


def test_folders_of_parts_within_those_of_splits_are_no_classes(tmp_path: Path) -> None:
    images = ("Train/part_1/I1.jpg", "Train/part_2/I2.jpg", "Test/images/I3.jpg")
    found = read_source(source(tmp_path, images, HAM))
    assert [(image.label, image.official_split) for image in found] == [
        ("mel", "train"),
        ("mel", "train"),
        ("nv", "test"),
    ]


@pytest.mark.parametrize(
    ("first", "second"), [("ISIC_2019_Training_Input", "ISIC_2019_Test_Input"), ("images/train", "images/test")]
)
def test_splits_of_listed_images_are_kept_under_the_challenges_names(first: str, second: str, tmp_path: Path) -> None:
    found = read_source(source(tmp_path, (f"{first}/I1.jpg", f"{first}/I2.jpg", f"{second}/I3.jpg"), HAM))
    assert [image.official_split for image in found] == ["train", "train", "test"]


def test_a_word_in_some_folders_alone_makes_no_splits(tmp_path: Path) -> None:
    images = ("HAM10000_images_part_1/I1.jpg", "HAM10000_images_part_2/I2.jpg", "ISIC2018_Task3_Test_Images/I3.jpg")
    found = read_source(source(tmp_path, images, HAM))
    assert [image.official_split for image in found] == [None, None, None]


def test_a_table_beside_class_folders_may_know_images_by_their_other_name(tmp_path: Path) -> None:
    table = LESIONS.replace("I1", "I1_downsampled")
    assert lesions(source(tmp_path, FOLDERS, table)) == ["L1", "L1", "L2"]


def test_a_table_of_diagnoses_may_know_images_by_their_other_name(tmp_path: Path) -> None:
    found = read_source(source(tmp_path, PARTS, HAM.replace("I1", "I1_downsampled")))
    assert [(image.image_id, image.label) for image in found] == [
        ("I1_downsampled", "mel"),
        ("I2", "mel"),
        ("I3", "nv"),
    ]


def test_a_table_that_names_none_of_the_images_is_refused(tmp_path: Path) -> None:
    table = LESIONS.replace("I", "i")
    with pytest.raises(DataError, match=r"not one of the 3 images that .*metadata\.csv names"):
        read_source(source(tmp_path, FOLDERS, table))


def test_a_folder_that_a_table_contradicts_is_refused(tmp_path: Path) -> None:
    images = ("Train/melanoma/I1.jpg", "Train/nevus/I3.jpg")
    with pytest.raises(DataError, match=r"I3\.jpg is mel in the CSV beside it"):
        read_source(source(tmp_path, images, HAM.replace("I3,L2,nv", "I3,L2,mel")))


def test_two_names_of_one_image_are_joined_across_tables(tmp_path: Path) -> None:
    root = source(tmp_path, ("a/I1_downsampled.jpg", "a/I2.jpg"), "isic_id,patient_id,lesion_id\nI1,P1,L1\nI2,P1,L1\n")
    (root / "truth.csv").write_text("image,MEL,NV,BCC\nI1_downsampled,1,0,0\nI2,0,1,0\n")
    found = read_source(root)
    assert [(image.image_id, image.label, image.patient_id, image.lesion_id) for image in found] == [
        ("I1_downsampled", "MEL", "P1", "L1"),
        ("I2", "NV", "P1", "L1"),
    ]


def test_two_images_of_one_table_stay_two(tmp_path: Path) -> None:
    root = source(tmp_path, ("a/I1_downsampled.jpg", "a/I2.jpg"), "image_id,lesion_id\nI1,L1\nI1_downsampled,L2\n")
    (root / "truth.csv").write_text("image,MEL,NV,BCC\nI1_downsampled,1,0,0\nI2,0,1,0\n")
    found = {image.image_id: (image.label, image.lesion_id) for image in read_source(root)}
    assert found == {"I1": (None, "L1"), "I1_downsampled": ("MEL", "L2"), "I2": ("NV", None)}


def test_two_files_that_each_have_a_row_stay_two(tmp_path: Path) -> None:
    root = source(tmp_path, ("a/I1_downsampled.jpg", "a/I1.jpg"), "image_id,dx\nI1,mel\n")
    (root / "truth.csv").write_text("image,MEL,NV,BCC\nI1_downsampled,0,1,0\n")
    assert [image.label for image in read_source(root)] == ["mel", "NV"]


@pytest.mark.parametrize(("one", "other"), [("BRAF+", "BRAF-"), ("<1 mm", ">1 mm")])
def test_classes_that_marks_alone_tell_apart_are_refused(one: str, other: str) -> None:
    with pytest.raises(LabelError, match="would be one class"):
        find_label_set([one, other, "scar"])
    spelled = ["Scar", "scar", "old_tattoo", "old-Tattoo", "nevus, common x", "nevus common x"]
    assert find_label_set(spelled).classes == ("Scar", "nevus common x", "old-Tattoo")


def test_two_spellings_of_one_class_are_nothing_to_tell_apart() -> None:
    images = [SourceImage("a", "/a", "nevus"), SourceImage("b", "/b", "naevus")]
    with pytest.raises(
        DataError, match="all 2 images have the label 'naevus' or 'nevus', so there is nothing to tell apart"
    ):
        check_classes(images, find_label_set(["nevus", "naevus"]), PrepareConfig())


def test_diagnoses_that_a_set_merges_are_named() -> None:
    found = ["pigmented benign keratosis", "seborrheic keratosis", "Seborrheic_Keratosis", "solar lentigo", "nevus"]
    images = [SourceImage(str(i), f"/{i}", label) for i, label in enumerate(found)]
    label_set = find_label_set(found)
    assert label_set.name == "isic2018"
    merged = ["Seborrheic_Keratosis", "pigmented benign keratosis", "solar lentigo"]
    assert merged_labels(images, label_set) == {"BKL": merged}


@pytest.mark.parametrize(
    "copy",
    [
        *(
            "X_random_zoom_3",
            "X_center_crop_1",
            "X_gaussian_noise_2",
            "X_horizontal_flip",
            "X_translate_3",
            "X_affine_1",
        ),
        *("aug_X", "aug_0_X", "rot15_X", "random_crop_X"),
    ],
)
def test_a_copys_name_leads_to_its_parent(copy: str) -> None:
    assert parents_of(["nevus"] * 2, [copy, "X"]) == ["X", "X"]
    assert parents_of(["nevus"], [copy]) == [None]


def test_a_photographers_word_before_a_name_makes_no_copy_of_it() -> None:
    for word, is_copy in (("zoom", False), ("zoom2", True)):
        stems = [f"{word}_case12", "case12"]
        parents = parents_of(["nevus"] * 2, stems)
        assert parents == ["case12", "case12"]
        assert are_copies(["nevus"] * 2, stems, parents) == [is_copy, False]


@pytest.mark.parametrize(
    ("copy", "parent"),
    [
        ("lesion_color_rot90", "lesion_color"),
        ("X_center_crop_1", "X_center"),
        ("aug_1_2", "1_2"),
        ("X_vertical-flip", "X"),
    ],
)
def test_of_several_possible_parents_the_longest_counts(copy: str, parent: str) -> None:
    stems = [copy, parent, "2", "lesion"]
    assert parents_of(["nevus"] * 4, stems)[:2] == [parent, parent]


def test_copies_and_parents_are_of_one_class_however_it_is_spelled(tmp_path: Path) -> None:
    images = [SourceImage("a", "/Train/Nevus/X_rot12.jpg", "Nevus"), SourceImage("b", "/Test/nevus/X.jpg", "nevus")]
    pictures = find_pictures(images, [Inspected("", "", 0, 0, "", "", None, None)] * 2)
    assert pictures.parents == ["nevus/X", "nevus/X"]
