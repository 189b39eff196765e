import base64
import io
import re
import tarfile
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from dermaray.augmentation.engines import build_augmenter
from dermaray.config import RunConfig
from dermaray.data.manifest import SCHEMA, Manifest
from dermaray.data.synthetic import render_lesion
from dermaray.errors import DataError
from dermaray.images.decode import decode_frame
from dermaray.images.resize import UInt8Array, fit, frame_shape, to_frame
from dermaray.labels import LabelSet
from dermaray.training.contact_sheet import draw_sheet, tile_of
from dermaray.training.preview import candidates_of_manifest, candidates_of_paths, make_preview, read_originals
from jobs.cli import main

LABELS = LabelSet("custom", ("melanoma", "nevus", "wart"), frozenset({"melanoma"}), "melanoma")
RECIPE = [
    {"operation": "flip_random", "probability": 0.5},
    {"operation": "rotate", "probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10},
    {"operation": "random_brightness", "probability": 0.5, "min_factor": 0.5, "max_factor": 1.5},
]
# Augmentor computes some geometry with numpy.matrix.
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")


def config_of(**changes: Any) -> RunConfig:
    values = {"name": "a-run", "out": "out", "data": {"manifest": "/no/manifest.parquet"}, "augment": RECIPE}
    return RunConfig.model_validate(values | {"input": {"height": 96, "width": 128}} | changes)


def draw_images(folder: Path, names: list[str], size: tuple[int, int] = (150, 200)) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        Image.fromarray(render_lesion("nevus", seed, size)).save(folder / name, quality=90)
    return [folder / name for name in names]


def manifest_of(uris: list[Path], labels: list[str], splits: list[str]) -> Manifest:
    rows = [
        {
            "image_id": f"id-{number}",
            "uri": str(uri),
            "label": label,
            "group_id": str(number),
            "split": split,
            "sha256": f"{number:064x}",
            "width": 200,
            "height": 150,
        }
        for number, (uri, label, split) in enumerate(zip(uris, labels, splits, strict=True))
    ]
    return Manifest(pa.Table.from_pylist(rows, SCHEMA), LABELS, {})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw_images(tmp_path / "images", ["a.jpg", "b.png"])
    return tmp_path / "images"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config_of().model_dump(mode="json")), encoding="utf-8")
    return path


def previewed(config: RunConfig, images: Path, draws: int = 3) -> Any:
    candidates = candidates_of_paths([images], config.seed)
    originals, _ = read_originals(candidates, config, 2)
    return make_preview(config, originals, draws, candidates.source)


def full_frame(path: Path) -> UInt8Array:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_a_tile_is_what_training_makes_of_the_image(images: Path, resize: str) -> None:
    config = config_of(input={"height": 96, "width": 112, "resize": resize}, seed=5)
    augment = build_augmenter(config.augment, config.input, 5, "fused")
    for row in previewed(config, images).parts[0].rows:
        decoded = decode_frame(next(images.glob(f"{row.caption}.*")).read_bytes(), config.input)
        size = (decoded.height, decoded.width)
        assert row.tiles[0].tobytes() == fit(decoded.pixels, config.input).tobytes()
        made = [augment(decoded.pixels, size, row.caption, epoch, 0) for epoch in range(3)]
        assert [tile.tobytes() for tile in row.tiles[1:]] == [pixels.tobytes() for pixels in made]
        assert len({tile.tobytes() for tile in row.tiles}) > 1


def test_the_package_itself_gets_the_picture_at_its_full_size(images: Path) -> None:
    config = config_of(augment_engine="augmentor", input={"height": 48, "width": 48, "resize": "pad"})
    augment = build_augmenter(config.augment, config.input, 0, "augmentor")
    row = next(row for row in previewed(config, images).parts[0].rows if row.caption == "b")
    full = full_frame(images / "b.png")
    made = [augment(full, full.shape[:2], "b", epoch, 0) for epoch in range(3)]
    assert [tile.tobytes() for tile in row.tiles[1:]] == [pixels.tobytes() for pixels in made]
    shape = frame_shape(*full.shape[:2], config.input)
    assert row.tiles[0].tobytes() == fit(to_frame(full, shape, config.input), config.input).tobytes()


@pytest.mark.parametrize("engine", ["fused", "augmentor"])
def test_each_operation_is_shown_alone_and_applied_every_time(images: Path, engine: str) -> None:
    recipe = [{"operation": "invert", "probability": 0.1}, {"operation": "flip_left_right", "probability": 0.1}]
    config = config_of(augment=recipe, augment_engine=engine, input={"height": 150, "width": 200})
    preview = previewed(config, images, draws=5)
    inverted, mirrored = preview.parts[1].rows
    for tile in inverted.tiles[1:]:
        np.testing.assert_array_equal(tile, 255 - inverted.tiles[0])
    for tile in mirrored.tiles[1:]:
        np.testing.assert_array_equal(tile, mirrored.tiles[0][:, ::-1])
    assert len(mirrored.tiles) == 6
    assert preview.facts["Engine"] == engine


def test_captions_are_the_operation_and_its_parameters_as_in_yaml(images: Path) -> None:
    colour = {"max_left_rotation": 5, "max_right_rotation": 5.5, "expand": True, "fillcolor": [1, 2, 3]}
    recipe = [{"operation": "rotate_without_crop", "probability": 0.5, **colour}]
    (row,) = previewed(config_of(augment=recipe), images).parts[1].rows
    assert row.caption == "rotate_without_crop"
    assert yaml.safe_load("\n".join(row.details)) == {"probability": 0.5, **colour}
    assert row.details[-1] == "fillcolor: [1, 2, 3]"


@pytest.mark.parametrize("engine", ["fused", "augmentor"])
def test_an_empty_recipe_says_so_and_shows_the_originals(images: Path, engine: str) -> None:
    config = config_of(augment=[], augment_engine=engine, input={"height": 48, "width": 48, "resize": "crop"})
    preview = previewed(config, images)
    (part,) = preview.parts
    assert part.columns == ("original",)
    assert "recipe is empty" in part.meaning
    assert "recipe is empty" in preview.summary
    decoded = decode_frame((images / "b.png").read_bytes(), config.input)
    assert fit(decoded.pixels, config.input).tobytes() in [row.tiles[0].tobytes() for row in part.rows]
    draw_sheet(preview)


def test_training_images_of_a_manifest_take_turns_by_class(tmp_path: Path) -> None:
    uris = draw_images(tmp_path, [f"{number}.jpg" for number in range(12)], (40, 50))
    labels = ["nevus"] * 8 + ["wart", "melanoma", "melanoma", "melanoma"]
    manifest = manifest_of(uris, labels, ["train"] * 11 + ["test"])
    chosen = candidates_of_manifest(manifest, seed=1)
    assert chosen.labels is not None
    assert chosen.image_ids is not None
    assert list(chosen.labels)[:5] == ["melanoma", "nevus", "wart", "melanoma", "nevus"]
    assert len(chosen.labels) == 11
    originals, _ = read_originals(chosen, config_of(), 4)
    assert [original.image_id for original in originals] == list(chosen.image_ids)[:4]
    by_id = dict(zip([f"id-{number}" for number in range(12)], uris, strict=True))
    assert all(original.data == by_id[original.image_id].read_bytes() for original in originals)
    orders = {tuple(candidates_of_manifest(manifest, seed).image_ids or ()) for seed in (1, 1, 2)}
    assert len(orders) == 2


def test_files_keep_their_order_and_folders_take_turns(tmp_path: Path) -> None:
    files = draw_images(tmp_path, ["z.jpg", "m.jpg", "a.jpg"], (40, 50))
    originals, _ = read_originals(candidates_of_paths(files, 0), config_of(), 3)
    assert [original.image_id for original in originals] == ["z", "m", "a"]
    draw_images(tmp_path / "classes" / "many", [f"many{number}.jpg" for number in range(9)], (40, 50))
    draw_images(tmp_path / "classes" / "one", ["one.jpg"], (40, 50))
    originals, _ = read_originals(candidates_of_paths([tmp_path / "classes"], 0), config_of(), 2)
    assert [original.image_id[:3] for original in originals] == ["man", "one"]


def test_the_sheet_holds_the_tiles_pixel_by_pixel(images: Path) -> None:
    preview = previewed(config_of(), images)
    sheet = np.asarray(draw_sheet(preview))
    assert sheet.shape[1] < 1200
    for part in preview.parts:
        for row in part.rows:
            for tile in row.tiles:
                assert place_of(tile, sheet)
    # Margins are paper: nothing is cut at an edge.
    assert (sheet[:, -20:] == 255).all()
    assert (sheet[-20:] == 255).all()


def place_of(tile: UInt8Array, sheet: UInt8Array) -> tuple[int, int] | None:
    height, width = tile.shape[:2]
    starts = np.argwhere((sheet[: -height + 1, : -width + 1] == tile[0, 0]).all(axis=2)).tolist()
    found = [(y, x) for y, x in starts if np.array_equal(sheet[y : y + height, x : x + width], tile)]
    return found[0] if found else None


def test_long_captions_are_broken_not_cut(images: Path, tmp_path: Path) -> None:
    (long,) = draw_images(tmp_path / "long", [f"{'W' * 90}.jpg"])
    narrow, preview = draw_sheet(previewed(config_of(), images)), previewed(config_of(), long)
    wide = draw_sheet(preview)
    assert wide.width - narrow.width < 300
    sheet = np.asarray(wide)
    place = place_of(preview.parts[0].rows[0].tiles[0], sheet)
    assert place is not None
    top, left = place
    # The caption ends before the first tile and begins within the margin.
    assert (sheet[top : top + 96, left - 16 : left] == 255).all()
    assert (sheet[top : top + 96, 40 : left - 16] < 255).any()
    assert (sheet[:, :40] == 255).all()


@pytest.mark.parametrize("shape", [(16, 16), (96, 256), (180, 180), (2048, 1024), (16, 2048)])
def test_tiles_are_neither_tiny_nor_huge(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 7, np.uint8)
    tile = tile_of(pixels)
    assert 96 <= max(tile.shape[:2]) <= 256
    assert (tile == 7).all()
    if shape in [(96, 256), (180, 180)]:
        assert tile.shape == pixels.shape


def test_the_job_writes_a_sheet_and_a_page_that_stands_alone(
    images: Path, configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["preview", "--config", str(configuration), "--images", str(images), "seed=3", "--draws", "2", "--out"]
    assert main([*words, str(tmp_path / "one")]) == 0
    assert "2 images, each with 2 augmentations by the engine fused" in capsys.readouterr().out
    names = [".dermaray", "preview.html", "preview.png"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    html = (tmp_path / "one" / "preview.html").read_text(encoding="utf-8")
    inside = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert len(inside) == html.count("<img ") == (2 + len(RECIPE)) * 3
    assert all(Image.open(io.BytesIO(base64.b64decode(code))).size == (128, 96) for code in inside)
    assert not re.search(r"https?:|<script|<link|url\(", html)
    text = unescape(re.sub(r"<[^>]+>", " ", html))
    assert {"flip_random", "max_left_rotation: 10", "epoch 1", "draw 1", "fused"} <= set(re.split(r"\s{2,}|\n", text))
    # Seed 3 reached it, although it stands behind --images.
    assert re.search(r"Seed\s+3\b", text)
    assert main([*words, str(tmp_path / "two")]) == 0
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_cannot_be_read_is_left_out_with_a_note(
    images: Path, configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "c.jpg").write_bytes(b"no image")
    words = ["preview", "--config", str(configuration), "--images", str(images), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Left out:" in out
    assert "c.jpg: not one of JPEG" in out
    assert "2 images, each" in out


def test_a_tar_that_proves_empty_is_said_to_be(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "none.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"none.tar.gz holds no image"):
        read_originals(candidates_of_paths([tmp_path / "none.tar.gz"], 0), config_of(), 2)


def test_a_manifest_is_used_where_no_images_are_named(
    images: Path, configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest_of([images / "a.jpg", images / "b.png"], ["nevus", "wart"], ["train", "val"]).write(tmp_path / "m.parquet")
    override = f"data.manifest={tmp_path / 'm.parquet'}"
    assert main(["preview", "--config", str(configuration), override, "--out", str(tmp_path / "out")]) == 0
    assert "1 image, each" in capsys.readouterr().out
    html = (tmp_path / "out" / "preview.html").read_text(encoding="utf-8")
    assert "id-0" in html
    assert "id-1" not in html
    assert "<li>nevus</li>" in html


MISTAKES = {
    "a missing configuration": (["--config", "/nowhere.yaml"], "configs/"),
    "a wrong recipe": (["augment=[{operation: rotat, probability: 1}]"], "Did you mean 'rotate'?"),
    "a missing manifest": ([], "Or show other images: --images PATH"),
    "a missing image": (["--images", "/nowhere.jpg"], "/nowhere.jpg does not exist"),
    "a folder without images": (["--images", "{tmp}/empty"], "empty holds no image"),
    "no image that can be read": (["--images", "{tmp}/bad.jpg"], "bad.jpg: the file has zero bytes"),
    "no draws": (["--images", "{tmp}/images", "--draws", "0"], "from 1 to 50 was expected. Received: 0"),
    "a folder of the user's": (["--images", "{tmp}/images", "--out", "{tmp}/images"], "did not write"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    mistake: str, images: Path, configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jpg").touch()
    words, expected = MISTAKES[mistake]
    given = [word.format(tmp=tmp_path) if "{tmp}" in word else word for word in words]
    try:
        code = main(["preview", "--config", str(configuration), "--out", str(tmp_path / "out"), *given])
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*partial"))
