"""A contact sheet: rows of images under headings, drawn as one picture."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from dermaray.images.resize import UInt8Array, shrink

# Tiles whose longer side is between these are shown pixel by pixel.
_SMALLEST_TILE, _LARGEST_TILE = 96, 256

_PAPER, _INK, _MUTED = "#ffffff", "#1c2430", "#5b6675"
_MARGIN, _GAP = 40, 8
_NARROWEST_SHEET, _NARROWEST_CELL, _WIDEST_CAPTION = 680, 72, 280
# Above a row, above a part, and between the names of columns and their tiles.
_ROW_GAP, _PART_GAP, _NAME_GAP = 20, 44, 6
_Line = tuple[str, int, str]  # words, size, colour


@dataclass(frozen=True)
class Row:
    """A row of tiles, uint8 [*spec.shape] each; the first is the original."""

    caption: str
    details: tuple[str, ...]
    tiles: tuple[UInt8Array, ...]


@dataclass(frozen=True)
class Part:
    """Rows under one heading, a sentence on them, and the names of their columns."""

    heading: str
    meaning: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Preview:
    """What is shown: a title, facts in the order to be shown, and the rows; `summary` is for the command line."""

    title: str
    summary: str
    facts: dict[str, str]
    parts: tuple[Part, ...]


def tile_of(pixels: UInt8Array) -> UInt8Array:
    """Return pixels at the size at which they are shown: as they are, unless that is very small or very large."""
    shown = shrink(pixels, _LARGEST_TILE)
    times = -(-_SMALLEST_TILE // max(shown.shape[:2]))
    return shown.repeat(times, axis=0).repeat(times, axis=1)


def draw_sheet(preview: Preview) -> Image.Image:
    """Draw all rows one below the other, captions to the left, tiles as `tile_of` has them."""
    rows = [row for part in preview.parts for row in part.rows]
    cell = max(tile_of(rows[0].tiles[0]).shape[1], _NARROWEST_CELL) + _GAP
    captions = (_font(size).getlength(words) for row in rows for words, size, _ in _caption(row))
    left = min(math.ceil(max(captions)), _WIDEST_CAPTION) + 3 * _GAP
    width = max(left + cell * max(len(row.tiles) for row in rows) - _GAP, _NARROWEST_SHEET)
    facts = " · ".join(f"{name}: {value}" for name, value in preview.facts.items())
    strips = [(_MARGIN, _text([(preview.title, 28, _INK), (facts, 15, _MUTED)], width))]
    for part in preview.parts:
        strips.append((_PART_GAP, _text([(part.heading, 21, _INK), (part.meaning, 15, _MUTED)], width)))
        strips.append((_ROW_GAP, _column_names(part.columns, width, left, cell)))
        gaps = [_NAME_GAP, *[_ROW_GAP] * len(part.rows)]
        strips += [(gap, _strip(row, width, left, cell)) for gap, row in zip(gaps, part.rows, strict=False)]
    height = sum(gap + strip.height for gap, strip in strips) + _MARGIN
    sheet = Image.new("RGB", (width + 2 * _MARGIN, height), _PAPER)
    top = 0
    for gap, strip in strips:
        sheet.paste(strip, (_MARGIN, top + gap))
        top += gap + strip.height
    return sheet


def _caption(row: Row) -> list[_Line]:
    return [(row.caption, 17, _INK), *((detail, 14, _MUTED) for detail in row.details)]


def _strip(row: Row, width: int, left: int, cell: int) -> Image.Image:
    text, tiles = _text(_caption(row), left - 3 * _GAP), [tile_of(tile) for tile in row.tiles]
    strip = Image.new("RGB", (width, max(text.height, tiles[0].shape[0])), _PAPER)
    strip.paste(text, (0, 0))
    for position, tile in enumerate(tiles):
        strip.paste(Image.fromarray(tile), (left + position * cell, 0))
    return strip


def _column_names(names: Sequence[str], width: int, left: int, cell: int) -> Image.Image:
    strip = Image.new("RGB", (width, _text([(names[0], 14, _MUTED)], width).height), _PAPER)
    for position, name in enumerate(names):
        strip.paste(_text([(name, 14, _MUTED)], cell), (left + position * cell, 0))
    return strip


def _text(lines: Sequence[_Line], width: int) -> Image.Image:
    """Draw lines, broken where they are longer than `width` pixels."""
    broken = [(part, size, colour) for words, size, colour in lines for part in _broken(words, _font(size), width)]
    heights = [round(size * 1.4) for _, size, _ in broken]
    image = Image.new("RGB", (width, sum(heights)), _PAPER)
    draw, top = ImageDraw.Draw(image), 0
    for (words, size, colour), height in zip(broken, heights, strict=True):
        draw.text((0, top), words, fill=colour, font=_font(size))
        top += height
    return image


def _broken(words: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break words to lines of at most `width` pixels: at spaces, or where there is none anywhere."""
    lines = [""]
    for piece in re.split(r"(?<= )", words):
        if font.getlength((lines[-1] + piece).rstrip()) > width and lines[-1]:
            lines.append("")
        for letter in piece:
            if font.getlength((lines[-1] + letter).rstrip()) > width:
                lines.append("")
            lines[-1] += letter
    return lines


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, so it cannot write text of any size")
    return font
