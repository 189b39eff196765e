import random

import Augmentor
import pytest
from PIL import Image

from dermaray.data.copies import are_copies, parents_of
from dermaray.data.formats import read_source
from dermaray.data.synthetic import render_lesion


def of_one_class(stems: list[str]) -> list[str | None]:
    return parents_of(["nevus"] * len(stems), stems)


UUID = "3f0c7c1e-58f8-4d53-8b0e-0d9f1f0a2b3c"


def test_names_that_augmentor_writes_lead_to_their_parent(tmp_path) -> None:
    Image.fromarray(render_lesion("nevus", 1, (60, 80))).save(tmp_path / "ISIC_0000139.jpg")
    random.seed(0)
    pipeline = Augmentor.Pipeline(str(tmp_path))
    pipeline.flip_left_right(probability=1)
    pipeline.sample(3, multi_threaded=False)
    written = [path.stem for path in (tmp_path / "output").iterdir()]
    assert len(written) == 3
    assert of_one_class(written) == ["ISIC_0000139"] * 3


def test_augmentors_own_folder_of_copies_leads_to_the_class_folders(tmp_path) -> None:
    for label, name in (("melanoma", "a"), ("nevus", "b"), ("nevus", "c")):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.fromarray(render_lesion(label, 1, (60, 80))).save(tmp_path / label / f"{name}.jpg")
    random.seed(0)
    pipeline = Augmentor.Pipeline(str(tmp_path))
    pipeline.flip_left_right(probability=1)
    pipeline.sample(12, multi_threaded=False)
    images = read_source(tmp_path)
    parents = parents_of([image.label for image in images], [image.image_id for image in images])
    found = {(image.label, parent) for image, parent in zip(images, parents, strict=True)}
    assert len(images) == 3 + 12
    assert found == {("melanoma", "a"), ("nevus", "b"), ("nevus", "c")}


def test_a_copy_of_a_copy_leads_to_the_first_parent() -> None:
    copy = f"nevus_original_ISIC_1.jpg_{UUID}"
    assert of_one_class([f"output_original_{copy}.jpg_{UUID}"]) == ["ISIC_1"]


@pytest.mark.parametrize(
    "copy",
    ["ISIC_1_rot90", "ISIC_1-flipped", "ISIC_1_aug_3", "ISIC_1_zoom_hflip", "ISIC_1_brightened", "ISIC_1_augment1"],
)
def test_names_that_scripts_write_count_where_the_parent_is_there(copy: str) -> None:
    assert of_one_class([copy, "ISIC_1", "ISIC_2"]) == ["ISIC_1", "ISIC_1", None]
    assert of_one_class([copy, "ISIC_2"]) == [None, None]


@pytest.mark.parametrize(
    "name", ["case_rotterdam", "case-crops", "case_12_brightfield", "case_augsburg_1", "case_zoomá"]
)
def test_words_that_only_begin_alike_lead_nowhere(name: str) -> None:
    assert of_one_class([name, "case", "case_12"]) == [None] * 3


@pytest.mark.parametrize(
    ("names", "copies"),
    [
        (["case12_zoom"], []),
        (["case12_zoom", "case12_zoom_2", "case12-rot90"], ["case12_zoom", "case12_zoom_2", "case12-rot90"]),
        (["case12_zoom", "case12_flipped"], ["case12_zoom", "case12_flipped"]),
        ([f"nevus_original_case12.jpg_{UUID}"], [f"nevus_original_case12.jpg_{UUID}"]),
    ],
)
def test_a_bare_word_makes_a_copy_only_beside_another(names: list[str], copies: list[str]) -> None:
    stems = [*names, "case12", "case13", "case13_zoom"]
    parents = of_one_class(stems)
    assert parents == [*["case12"] * (len(names) + 1), "case13", "case13"]
    assert [
        s for s, copy in zip(stems, are_copies(["nevus"] * len(stems), stems, parents), strict=True) if copy
    ] == copies


@pytest.mark.parametrize("name", ["ISIC_0000139", "ISIC_0000030_downsampled", "melanoma_original_3", "IMG_rotterdam"])
def test_other_names_are_left_alone(name: str) -> None:
    assert of_one_class([name]) == [None]


def test_one_name_in_two_classes_is_two_images() -> None:
    stems = ["1", "1_rot90", "1", "2_rot90"]
    assert parents_of(["nevus", "nevus", "melanoma", "melanoma"], stems) == ["1", "1", None, None]
