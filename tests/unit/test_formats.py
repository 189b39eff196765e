import os
from pathlib import Path

import pytest
from PIL import Image

from dermaray.data.formats import read_source
from dermaray.data.source import SourceImage, is_image_name
from dermaray.errors import DataError

UUID = "3f0c7c1e-58f8-4d53-8b0e-0d9f1f0a2b3c"
HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"


def make_images(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)


def write_csv(root: Path, *rows: str, name: str = "HAM10000_metadata.csv") -> None:
    (root / name).write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", True), ("a.JPEG", True), ("a.tif", True), ("a.txt", False), (".a.jpg", False), ("jpg", False)],
)
def test_what_is_an_image_by_its_name(name: str, expected: bool) -> None:
    assert is_image_name(Path(name)) is expected


def test_class_folders_give_labels(tmp_path: Path) -> None:
    make_images(tmp_path, "nevus/b.png", "nevus/deeper/c.JPG", "melanoma/a.jpg", ".hidden/x.jpg")
    (tmp_path / "nevus" / "notes.txt").write_text("no image")
    assert read_source(tmp_path) == [
        SourceImage("a", str(tmp_path / "melanoma" / "a.jpg"), "melanoma"),
        SourceImage("b", str(tmp_path / "nevus" / "b.png"), "nevus"),
        SourceImage("c", str(tmp_path / "nevus" / "deeper" / "c.JPG"), "nevus"),
    ]
    assert read_source(str(tmp_path)) == read_source(tmp_path)


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path, "source/nevus/b.png")
    monkeypatch.chdir(tmp_path)
    assert [image.uri for image in read_source("source")] == [str(tmp_path / "source" / "nevus" / "b.png")]


def test_an_image_beside_the_class_folders_has_no_label(tmp_path: Path) -> None:
    make_images(tmp_path, "Train/nevus/a.jpg", "Train/b.jpg", "c.jpg")
    images = {image.image_id: (image.label, image.official_split) for image in read_source(tmp_path)}
    assert images == {"a": ("nevus", "train"), "b": (None, "train"), "c": (None, None)}


def test_links_are_followed_and_those_in_a_circle_once(tmp_path: Path) -> None:
    make_images(tmp_path, "elsewhere/a.jpg", "source/melanoma/b.jpg")
    (tmp_path / "source" / "nevus").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source" / "melanoma" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    images = {image.image_id: image.label for image in read_source(tmp_path / "source")}
    assert images == {"a": "nevus", "b": "melanoma", "gone": "melanoma"}


@pytest.mark.parametrize("parent", ["", "Train/"])
def test_the_folder_that_augmentor_writes_is_no_class(tmp_path: Path, parent: str) -> None:
    copy = f"melanoma_original_a.jpg_{UUID}.jpg"
    names = [
        "melanoma/a.jpg",
        "nevus/c.jpg",
        f"output/melanoma/{copy}",
        f"output/nevus/nevus_original_c.jpg_{UUID}.jpg",
    ]
    make_images(tmp_path, *(f"{parent}{name}" for name in names))
    labels = {image.image_id: image.label for image in read_source(tmp_path)}
    assert labels == {
        "a": "melanoma",
        "c": "nevus",
        copy.removesuffix(".jpg"): "melanoma",
        f"nevus_original_c.jpg_{UUID}": "nevus",
    }


@pytest.mark.parametrize(
    "other",
    ["output/melanoma/b.jpg", f"output/nevus_original_c.jpg_{UUID}.jpg", f"output/x/x_original_c.jpg_{UUID}.jpg"],
)
def test_a_folder_with_anything_else_in_it_is_a_class(tmp_path: Path, other: str) -> None:
    copy = f"output/melanoma/melanoma_original_a.jpg_{UUID}.jpg"
    make_images(tmp_path, "melanoma/a.jpg", "nevus/c.jpg", copy, other)
    assert {image.label for image in read_source(tmp_path)} == {"melanoma", "nevus", "output"}


def test_split_folders_give_official_splits(tmp_path: Path) -> None:
    make_images(tmp_path, "Train/nevus/a.jpg", "Test/nevus/b.jpg", "Validation/melanoma/c.jpg")
    images = {image.image_id: (image.label, image.official_split) for image in read_source(tmp_path)}
    assert images == {"a": ("nevus", "train"), "b": ("nevus", "test"), "c": ("melanoma", "val")}


@pytest.mark.parametrize("val", ["valid", "Validation", "VAL", "val_dir", "valid-set", "Val data", "valset"])
def test_a_split_has_more_than_one_name(tmp_path: Path, val: str) -> None:
    for folder, name in (("training", "a"), ("test_set", "b"), (val, "c")):
        make_images(tmp_path / folder, f"nevus/{name}.jpg", f"melanoma/{name}{name}.jpg")
    splits = {image.image_id: image.official_split for image in read_source(tmp_path)}
    assert splits == {"a": "train", "aa": "train", "b": "test", "bb": "test", "c": "val", "cc": "val"}


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (["fold_1", "fold_2"], ["mel", "nv"]),
        (["for learning", "held out"], ["a", "b", "c"]),
        (["mel", "nv"], ["test", "train"]),
    ],
)
def test_folders_that_hold_the_same_folders_are_no_classes(tmp_path: Path, outer: list[str], inner: list[str]) -> None:
    make_images(tmp_path, *(f"{one}/{other}/{one}_{other}.jpg" for one in outer for other in inner))
    with pytest.raises(DataError, match=f"classes were expected in .*: {' and '.join(outer)}, .*: {', '.join(inner)}$"):
        read_source(tmp_path)


def test_folders_within_those_of_diagnoses_are_passed_through(tmp_path: Path) -> None:
    make_images(tmp_path, *(f"{c}/{kind}/{c}_{kind}.jpg" for c in ("mel", "nv") for kind in ("close", "overview")))
    labels = {image.image_id: image.label for image in read_source(tmp_path)}
    assert labels == {"mel_close": "mel", "mel_overview": "mel", "nv_close": "nv", "nv_overview": "nv"}


def test_split_and_class_folders_do_not_mix(tmp_path: Path) -> None:
    make_images(tmp_path, "Train/nevus/a.jpg", "melanoma/b.jpg")
    with pytest.raises(DataError, match="mixes split folders and class folders: Train, melanoma"):
        read_source(tmp_path)


@pytest.mark.parametrize("parent", ["", "Train"])
def test_an_empty_class_folder_is_named(tmp_path: Path, parent: str) -> None:
    make_images(tmp_path / parent, "nevus/a.jpg")
    (tmp_path / parent / "melanoma").mkdir()
    with pytest.raises(DataError, match=r"class folder .*melanoma holds no image. Put images in it or remove it"):
        read_source(tmp_path)


@pytest.mark.parametrize("parent", ["", "Test"])
def test_images_without_class_folders(tmp_path: Path, parent: str) -> None:
    make_images(tmp_path / parent, "a.jpg")
    with pytest.raises(DataError, match=r"holds no folder. One folder per class was expected"):
        read_source(tmp_path)


def test_a_missing_source_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none does not exist. A folder of class folders, or "):
        read_source(tmp_path / "none")
    make_images(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"a.jpg is a file. A folder of class folders"):
        read_source(tmp_path / "a.jpg")


def test_the_same_name_in_train_and_test_gets_two_ids(tmp_path: Path) -> None:
    make_images(tmp_path, "Train/nevus/a.jpg", "Test/nevus/a.jpg", "Test/nevus/b.jpg")
    images = read_source(tmp_path)
    first, second, third = (image.image_id for image in images)
    assert first.startswith("Test/nevus/a")
    assert second.startswith("Train/nevus/a")
    assert third == "b"
    assert [image.official_split for image in images] == ["test", "train", "test"]


def test_the_same_name_with_two_suffixes_gets_two_ids(tmp_path: Path) -> None:
    make_images(tmp_path, "nevus/a.jpg", "nevus/a.png", "melanoma/b.jpg")
    ids = [image.image_id for image in read_source(tmp_path)]
    assert len(set(ids)) == len(ids) == 3


def test_ham10000_rows_become_images(tmp_path: Path) -> None:
    make_images(tmp_path, "HAM10000_images_part_1/ISIC_1.jpg", "HAM10000_images_part_2/ISIC_2.jpg")
    write_csv(tmp_path, "HAM_1,ISIC_1,bkl,histo,80.0,male,scalp", "HAM_2,ISIC_2,nv,histo,,unknown,unknown")
    first, second = (tmp_path / f"HAM10000_images_part_{n}" / f"ISIC_{n}.jpg" for n in (1, 2))
    assert read_source(tmp_path) == [
        SourceImage("ISIC_1", str(first), "bkl", lesion_id="HAM_1", age=80.0, sex="male", site="scalp"),
        SourceImage("ISIC_2", str(second), "nv", lesion_id="HAM_2"),
    ]


def test_a_row_without_a_file_and_a_file_without_a_row_are_told(tmp_path: Path) -> None:
    make_images(tmp_path, "images/ISIC_1.jpg", "images/ISIC_3.jpg")
    write_csv(tmp_path, "HAM_1,ISIC_1,nv,histo,40,female,back", "HAM_2,ISIC_2,,histo,40,female,back")
    assert read_source(tmp_path)[1:] == [
        SourceImage("ISIC_2", None, None, lesion_id="HAM_2", age=40.0, sex="female", site="back"),
        SourceImage("ISIC_3", str(tmp_path / "images" / "ISIC_3.jpg"), None),
    ]


def test_rows_of_which_none_has_a_file_are_refused(tmp_path: Path) -> None:
    make_images(tmp_path, "images/other.jpg")
    write_csv(tmp_path, "HAM_1,ISIC_1,nv,histo,40,female,back", "HAM_2,ISIC_2,nv,histo,40,female,back")
    with pytest.raises(DataError, match=r"not one of the 2 images that .*HAM10000_metadata.csv list is below"):
        read_source(tmp_path)


def test_files_without_a_row_that_have_one_name_get_two_ids(tmp_path: Path) -> None:
    make_images(tmp_path, "images/ISIC_1.jpg", "images/x.jpg", "masks/x.png")
    write_csv(tmp_path, "HAM_1,ISIC_1,nv,histo,40,female,back")
    assert [image.image_id for image in read_source(tmp_path)] == ["ISIC_1", "images/x.jpg", "masks/x.png"]


def test_a_file_that_a_row_could_not_mean_alone_is_refused(tmp_path: Path) -> None:
    make_images(tmp_path, "images/ISIC_1.jpg", "masks/ISIC_1.png")
    write_csv(tmp_path, "HAM_1,ISIC_1,nv,histo,40,female,back")
    with pytest.raises(DataError, match="have one name"):
        read_source(tmp_path)


@pytest.mark.parametrize("row", ["HAM_1,ISIC_1", "HAM_1,ISIC_1,nv,histo,40,female,back,more"])
def test_a_row_of_the_wrong_width_is_refused(row: str, tmp_path: Path) -> None:
    make_images(tmp_path, "images/ISIC_1.jpg")
    write_csv(tmp_path, row)
    with pytest.raises(DataError, match="line 2: not as many values"):
        read_source(tmp_path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    make_images(tmp_path, "nevus/a.jpg")
    (tmp_path / "nevus" / "a.jpg").rename(os.fsdecode(os.fsencode(tmp_path) + b"/nevus/\xff.jpg"))
    with pytest.raises(DataError, match="not valid UTF-8"):
        read_source(tmp_path)


def test_the_table_is_known_by_its_columns(tmp_path: Path) -> None:
    make_images(tmp_path, "ISIC_1.jpg")
    (tmp_path / "a.csv").write_text("id,score\n1,2\n")
    (tmp_path / "z.csv").write_text("\ufeffimage_id,dx\nISIC_1,mel\n", encoding="utf-8")
    assert read_source(tmp_path) == [SourceImage("ISIC_1", str(tmp_path / "ISIC_1.jpg"), "mel")]


def test_a_foreign_table_beside_class_folders_is_ignored(tmp_path: Path) -> None:
    make_images(tmp_path, "nevus/a.jpg")
    (tmp_path / "notes.csv").write_text("a,b\n")
    (tmp_path / "empty.csv").write_text("")
    assert [image.label for image in read_source(tmp_path)] == ["nevus"]


@pytest.mark.parametrize("age", ["50s", "-1", "inf", "4000"])
def test_an_age_that_is_no_number_of_years_is_named(age: str, tmp_path: Path) -> None:
    make_images(tmp_path, "ISIC_1.jpg")
    write_csv(tmp_path, f"HAM_1,ISIC_1,nv,histo,{age},female,back")
    with pytest.raises(
        DataError, match=rf"HAM10000_metadata\.csv, line 2: age is a number of years. Received: '{age}'"
    ):
        read_source(tmp_path)


def test_a_table_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    make_images(tmp_path, "ISIC_1.jpg")
    (tmp_path / "meta.csv").write_bytes("image_id,dx,sex\nISIC_1,nv,féminin\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"meta\.csv, line 2: not a CSV in UTF-8"):
        read_source(tmp_path)


def test_an_id_that_is_listed_twice(tmp_path: Path) -> None:
    make_images(tmp_path, "ISIC_1.jpg")
    row = "HAM_1,ISIC_1,nv,histo,40,female,back"
    write_csv(tmp_path, row, row)
    assert len(read_source(tmp_path)) == 1
    write_csv(tmp_path, row, "", row.replace("nv", "mel"))
    with pytest.raises(DataError, match=r"line 4: ISIC_1 is in the file twice, with different values"):
        read_source(tmp_path)


def test_a_table_beside_sorted_folders_adds_to_them(tmp_path: Path) -> None:
    for place in ("Train/melanoma", "Train/nevus", "Test/melanoma", "Test/nevus"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"{place[:2]}_{place[-3:]}.jpg").touch()
    (tmp_path / "metadata.csv").write_text("isic_id,diagnosis_1,lesion_id\nTr_oma,Malignant,L1\n")
    images = {image.image_id: image for image in read_source(tmp_path)}
    assert {(i.label, i.official_split) for i in images.values()} == {
        ("melanoma", "train"),
        ("nevus", "train"),
        ("melanoma", "test"),
        ("nevus", "test"),
    }
    assert images["Tr_oma"].lesion_id == "L1"


def test_images_that_a_table_lists_keep_the_split_of_their_folders(tmp_path: Path) -> None:
    for split, name in (("train", "A"), ("train", "B"), ("test", "C")):
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / split / f"{name}.jpg").touch()
    (tmp_path / "truth.csv").write_text("image_id,dx\nA,mel\nB,nv\nC,nv\nD,nv\n")
    splits = {image.image_id: image.official_split for image in read_source(tmp_path)}
    assert splits == {"A": "train", "B": "train", "C": "test", "D": None}


@pytest.mark.parametrize(("val", "test"), [("valid", "test"), ("Validation", "testing"), ("val", "Test")])
def test_files_without_a_row_do_not_decide_about_the_splits_of_those_that_have_one(
    tmp_path: Path, val: str, test: str
) -> None:
    make_images(tmp_path, "train/A.jpg", f"{val}/B.jpg", f"{test}/C.jpg", f"{test}/more.jpg", "preview.jpg")
    (tmp_path / "truth.csv").write_text("image_id,dx\nA,mel\nB,nv\nC,nv\n")
    splits = {image.image_id: image.official_split for image in read_source(tmp_path)}
    assert splits == {"A": "train", "B": "val", "C": "test", "more": "test", "preview": None}


@pytest.mark.parametrize("stray", ["B.jpg", "images/B.jpg"])
def test_listed_images_of_which_some_have_a_split_and_others_none_are_refused(tmp_path: Path, stray: str) -> None:
    make_images(tmp_path, "train/A.jpg", stray, "test/C.jpg")
    (tmp_path / "truth.csv").write_text("image_id,dx\nA,mel\nB,nv\nC,nv\n")
    with pytest.raises(DataError, match=rf"2 lie in test and train, 1 elsewhere: {tmp_path}/{stray}, say\. All in"):
        read_source(tmp_path)
