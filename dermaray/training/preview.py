"""What a recipe does to images: originals and what training makes of them, as a contact sheet and as a page."""

import base64
import io
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from PIL import Image

from dermaray.augmentation.engines import build_augmenter, takes_whole_pictures
from dermaray.config import RunConfig
from dermaray.data.archive import files_listing, list_members
from dermaray.data.manifest import Manifest
from dermaray.data.members import Member, read_members
from dermaray.data.storage import shown
from dermaray.errors import DataError, ImageError, OutputError
from dermaray.images.decode import DecodedImage, decode_frame
from dermaray.images.resize import UInt8Array, fit
from dermaray.pages import render_page
from dermaray.training.contact_sheet import Part, Preview, Row, draw_sheet, tile_of

SHEET, PAGE = "preview.png", "preview.html"
EMPTY = "The recipe is empty: training sees the originals as they are."

# Images that cannot be read are replaced by others, but not for ever.
_TRIES = 4


@dataclass(frozen=True)
class Candidates:
    """Images that could be shown, the first to be shown first.

    Attributes:
        members: Rows of `dermaray.data.members.MEMBER_SCHEMA`.
        image_ids: One per row as training calls them, or None: as the files are called.
        labels: One per row, or None where nobody knows them.
        source: Where they come from, in words.
    """

    members: pa.Table
    image_ids: Sequence[str] | None
    labels: Sequence[str] | None
    source: str


@dataclass(frozen=True)
class Original:
    """One image to show.

    Attributes:
        image_id: What its augmentation depends on.
        label: Its class, or None.
        data: The bytes of its file.
        decoded: Its frame, and its size in pixels.
    """

    image_id: str
    label: str | None
    data: bytes
    decoded: DecodedImage


def candidates_of_manifest(manifest: Manifest, seed: int) -> Candidates:
    """Return the training images of a manifest: the classes take turns, and `seed` decides within them.

    Raises:
        DataError: No image is in the training split.
    """
    rows = manifest.rows("train")
    rows = rows.take(_in_turn(manifest.label_indices(rows), seed))
    ids, labels, uris = (rows[column].to_pylist() for column in ("image_id", "label", "uri"))
    return Candidates(files_listing(uris), ids, labels, "training split")


def candidates_of_paths(paths: Sequence[Path], seed: int) -> Candidates:
    """Return images in the order given; those of folders and archives take turns by folder, decided by `seed`.

    Raises:
        DataError: See `dermaray.data.archive.list_members`.
    """
    listings = [list_members(path).members for path in paths]
    groups = [
        (position, str(Path(os.fsdecode(name)).parent))
        for position, listing in enumerate(listings)
        for name in listing["name"].to_pylist()
    ]
    members = pa.concat_tables(listings).take(_in_turn(groups, seed))
    first = shown(str(paths[0]))
    source = first if len(paths) == 1 else f"{len(paths)} paths given"
    return Candidates(members, None, None, source)


def read_originals(candidates: Candidates, config: RunConfig, count: int) -> tuple[list[Original], list[str]]:
    """Read the first `count` images that can be read.

    Returns:
        The images, and for each that was passed over its name and the reason.

    Raises:
        ImageError: None can be read.
        DataError: There is none.
    """
    originals: list[Original] = []
    problems: list[tuple[str, ImageError]] = []
    for position, member in enumerate(read_members(candidates.members.slice(0, count * _TRIES))):
        image_id = member.image_id if candidates.image_ids is None else candidates.image_ids[position]
        label = None if candidates.labels is None else candidates.labels[position]
        try:
            originals.append(_read(member, image_id, label, config))
        except ImageError as error:
            problems.append((member.uri, error))
        if len(originals) == count:
            break
    if not originals and not problems:
        raise DataError(f"{candidates.source} holds no image")  # A compressed tar tells only when it is read.
    if not originals:
        uri, first = problems[0]
        others = f" So it is with {len(problems) - 1} others" if len(problems) > 1 else ""
        raise ImageError(first.reason, f"{uri}: {first}.{others}".rstrip("."))
    return originals, [f"{uri}: {error}" for uri, error in problems]


def make_preview(config: RunConfig, originals: Sequence[Original], draws: int, source: str) -> Preview:
    """Show what training would make of images, and what each operation alone would make of the first of them.

    Args:
        config: Recipe, engine, seed and the model's input.
        originals: At least one.
        draws: How many augmentations of each image, of as many epochs; and of each operation.
        source: Where the images come from, in words.

    Raises:
        ConfigError: Augmentor itself fails on an image.
    """
    recipe = config.augment
    epochs = tuple(f"epoch {epoch}" for epoch in range(draws)) if recipe else ()
    rows = tuple(_image_row(config, original, len(epochs)) for original in originals)
    meaning = "The original as the model sees it, then what training makes of it, epoch by epoch." if recipe else EMPTY
    parts = [Part("As training sees them", meaning, ("original", *epochs), rows)]
    if recipe:
        labels = ("original", *(f"draw {draw}" for draw in range(draws)))
        rows = tuple(_operation_row(config, step, originals[0], draws) for step in recipe)
        meaning = f"On {originals[0].image_id}, applied every time. Captions give the parameters in the recipe."
        parts.append(Part("Each operation alone, with probability 1", meaning, labels, rows))
    height, width = config.input.height, config.input.width
    facts = {
        "Images": source,
        "Engine": config.augment_engine,
        "Recipe": _counted(len(recipe), "operation") if recipe else "empty",
        "Seed": str(config.seed),
        "Input": f"{width}x{height} pixels, {config.input.resize}",
    }
    return Preview(config.name, _summary(config, len(originals), draws), facts, tuple(parts))


def write_preview(out: Path, preview: Preview) -> None:
    """Write `preview.png` and `preview.html` into a folder.

    The page stands alone: images and style are inside it, nothing is fetched, nothing runs.

    Raises:
        OutputError: `out` cannot be written.
    """
    page = render_page("training/preview.html", {"jpeg": _jpeg}, preview=preview)
    try:
        draw_sheet(preview).save(out / SHEET)
        (out / PAGE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}. Choose another folder") from error


def _read(member: Member, image_id: str, label: str | None, config: RunConfig) -> Original:
    return Original(image_id, label, member.data, member.decode_frame(config.input))


def _in_turn(groups: Sequence[Any], seed: int) -> list[int]:
    """Return positions in an order in which the groups, sorted, take turns; within a group by lot."""
    shuffled = list(range(len(groups)))
    random.Random(seed).shuffle(shuffled)
    turns: Counter[Any] = Counter()
    ranks = []
    for position in shuffled:
        turns[groups[position]] += 1
        ranks.append((turns[groups[position]], groups[position], position))
    return [position for *_, position in sorted(ranks)]


def _image_row(config: RunConfig, original: Original, epochs: int) -> Row:
    augment = build_augmenter(config.augment, config.input, config.seed, config.augment_engine)
    frame, size = _frame(config, original), (original.decoded.height, original.decoded.width)
    tiles = [augment(frame, size, original.image_id, epoch, 0) for epoch in range(epochs)]
    details = (*([original.label] if original.label else ()), f"{size[1]}x{size[0]} pixels")
    return Row(original.image_id, details, (fit(original.decoded.pixels, config.input), *tiles))


def _operation_row(config: RunConfig, step: dict[str, Any], original: Original, draws: int) -> Row:
    augment = build_augmenter([step | {"probability": 1.0}], config.input, config.seed, config.augment_engine)
    frame, size = _frame(config, original), (original.decoded.height, original.decoded.width)
    tiles = [augment(frame, size, original.image_id, 0, draw) for draw in range(draws)]
    details = tuple(_as_yaml(key, value) for key, value in step.items() if key != "operation")
    return Row(str(step["operation"]), details, (fit(original.decoded.pixels, config.input), *tiles))


def _frame(config: RunConfig, original: Original) -> UInt8Array:
    whole = takes_whole_pictures(config.augment, config.augment_engine)
    return decode_frame(original.data, None).pixels if whole else original.decoded.pixels


def _as_yaml(key: str, value: Any) -> str:
    # As a mapping's only value, so that YAML marks no end of a document after it; without the mapping's braces.
    text: str = yaml.safe_dump({key: value}, default_flow_style=True, width=1000, allow_unicode=True)
    return text.strip()[1:-1]


def _summary(config: RunConfig, images: int, draws: int) -> str:
    if not config.augment:
        return f"{EMPTY} Shown: {_counted(images, 'original')}."
    return (
        f"{_counted(images, 'image')}, each with {_counted(draws, 'augmentation')} by the engine "
        f"{config.augment_engine}; then {_counted(len(config.augment), 'operation')}, each alone."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _jpeg(pixels: UInt8Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(tile_of(pixels)).save(buffer, "JPEG", quality=92, subsampling=0)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
