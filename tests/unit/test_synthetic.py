import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dermaray.data import synthetic
from dermaray.data.synthetic import COMMENT, MIN_PER_CLASS, generate_dataset, render_lesion
from dermaray.errors import DataError, OutputError
from dermaray.images.decode import decode_image
from dermaray.images.resize import UInt8Array
from dermaray.images.spec import InputSpec
from dermaray.labels import LABEL_SETS

CLASSES = LABEL_SETS["kaggle9"].classes
LEAST = MIN_PER_CLASS * len(CLASSES)
IMAGES = 125


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    out = tmp_path_factory.mktemp("synthetic") / "images"
    return out, generate_dataset(out, IMAGES, seed=5)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("diagnosis", CLASSES)
def test_render_gives_rgb_and_the_same_pixels_again(diagnosis: str) -> None:
    pixels = render_lesion(diagnosis, 7)
    assert pixels.shape == (240, 320, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, render_lesion(diagnosis, 7))
    assert not np.array_equal(pixels, render_lesion(diagnosis, 8))


@pytest.mark.parametrize("size", [(32, 32), (40, 200), (200, 40), (33, 77)])
def test_render_takes_any_size(size: tuple[int, int]) -> None:
    for seed in range(2):
        for diagnosis in CLASSES:
            assert render_lesion(diagnosis, seed, size).shape == (*size, 3)


def test_render_does_not_touch_global_random_state() -> None:
    np.random.seed(1)
    untouched = np.random.random()
    np.random.seed(1)
    render_lesion("nevus", 0, (64, 64))
    assert np.random.random() == untouched


def test_unknown_diagnosis_is_named() -> None:
    with pytest.raises(ValueError, match=r"one of actinic keratosis, .* Received: diagnosis='freckle'"):
        render_lesion("freckle", 0)


def test_counts_add_up_and_are_as_unequal_as_the_published_set(dataset: tuple[Path, dict[str, int]]) -> None:
    out, counts = dataset
    assert tuple(counts) == CLASSES
    assert sum(counts.values()) == IMAGES
    assert min(counts.values()) >= MIN_PER_CLASS
    assert counts["pigmented benign keratosis"] > counts["nevus"] > counts["seborrheic keratosis"]
    assert {f.name: len(list(f.glob("SYNTH_*.jpg"))) for f in out.iterdir() if f.is_dir()} == counts


def test_numbers_run_through_and_do_not_follow_the_classes(dataset: tuple[Path, dict[str, int]]) -> None:
    out, _ = dataset
    numbers = {name: sorted(int(p.stem.removeprefix("SYNTH_")) for p in (out / name).iterdir()) for name in CLASSES}
    assert sorted(n for found in numbers.values() for n in found) == list(range(1, IMAGES + 1))
    for found in numbers.values():
        assert found[0] < IMAGES / 2 < found[-1]


def test_every_file_decodes_and_says_that_it_is_synthetic(dataset: tuple[Path, dict[str, int]]) -> None:
    out, _ = dataset
    files = files_of(out)
    assert b"no patients" in files.pop("SYNTHETIC.txt")
    assert files.pop(".dermaray") == b""
    sizes = set()
    for data in files.values():
        assert decode_image(data, InputSpec()).pixels.shape == (180, 180, 3)
        with Image.open(io.BytesIO(data)) as image:
            assert image.info["comment"] == COMMENT
            sizes.add(image.size)
    assert {(320, 240), (300, 225)} <= sizes
    assert len(set(files.values())) == IMAGES


def test_same_images_and_seed_give_the_same_bytes(dataset: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    out, counts = dataset
    assert generate_dataset(tmp_path / "again", IMAGES, seed=5) == counts
    assert files_of(tmp_path / "again") == files_of(out)


def test_another_seed_gives_other_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_SIZES", ((48, 64),))
    for seed in (1, 2):
        assert set(generate_dataset(tmp_path / str(seed), LEAST, seed).values()) == {MIN_PER_CLASS}
    first, second = ({d for n, d in files_of(tmp_path / s).items() if n.endswith(".jpg")} for s in ("1", "2"))
    assert not first & second


def test_least_number_of_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"at least {LEAST}, .* Received: images={LEAST - 1}"):
        generate_dataset(tmp_path / "out", LEAST - 1)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="holds files"):
        generate_dataset(tmp_path, LEAST)
    assert files_of(tmp_path) == {"mine.txt": b"kept"}


def statistics(pixels: UInt8Array) -> npt.NDArray[np.float64]:
    """Return the mean and the spread of the middle's colours, and how the mean differs from the rim's."""
    height, width, _ = pixels.shape
    middle = pixels[height // 3 : -height // 3, width // 3 : -width // 3].reshape(-1, 3) / 255
    rim = np.median(pixels[height // 4 : -height // 4, : width // 6].reshape(-1, 3) / 255, axis=0)
    detail = np.abs(np.diff(pixels[height // 3 : -height // 3, width // 3 : -width // 3].mean(2), axis=1)).mean() / 20
    return np.concatenate([middle.mean(0), middle.std(0), middle.mean(0) - rim, [detail]])


def test_classes_differ_but_overlap() -> None:
    seeds = 24
    values = np.array([[statistics(render_lesion(c, s, (120, 160))) for s in range(seeds)] for c in CLASSES])
    values /= values.std((0, 1))
    centroids = values[:, ::2].mean(1)
    distances = np.linalg.norm(values[:, 1::2, None] - centroids, axis=-1)
    accuracy = (distances.argmin(-1) == np.arange(len(CLASSES))[:, None]).mean()
    assert 2 / len(CLASSES) < accuracy < 0.9
