"""Augmentor's operations of geometry, as maps from the new canvas back to the old.

Where Augmentor rounds to whole pixels, so do these: sizes and crops are the same. Angles are not rounded to degrees.
"""

import math
from random import Random
from typing import Literal

import numpy as np
from PIL import Image, ImageColor
from pydantic import Field, field_validator

from dermaray.augmentation.operation import Operation
from dermaray.augmentation.pixel_map import Matrix, leaves, scaling, shift
from dermaray.augmentation.scene import BLACK, Colour, Scene


class Rotate90(Operation):
    """Turn a quarter to the left."""

    name = "rotate90"

    def apply(self, scene: Scene, draws: Random) -> None:
        _quarter_turns(scene, 1)


class Rotate180(Operation):
    """Turn upside down."""

    name = "rotate180"

    def apply(self, scene: Scene, draws: Random) -> None:
        _quarter_turns(scene, 2)


class Rotate270(Operation):
    """Turn a quarter to the right."""

    name = "rotate270"

    def apply(self, scene: Scene, draws: Random) -> None:
        _quarter_turns(scene, 3)


class RotateRandom90(Operation):
    """Turn by one, two or three quarters."""

    name = "rotate_random_90"

    def apply(self, scene: Scene, draws: Random) -> None:
        _quarter_turns(scene, draws.randint(1, 3))


class FlipLeftRight(Operation):
    """Mirror."""

    name = "flip_left_right"

    def apply(self, scene: Scene, draws: Random) -> None:
        _flip_left_right(scene)


class FlipTopBottom(Operation):
    """Mirror at the horizontal."""

    name = "flip_top_bottom"

    def apply(self, scene: Scene, draws: Random) -> None:
        _flip_top_bottom(scene)


class FlipRandom(Operation):
    """Mirror one way or the other."""

    name = "flip_random"

    def apply(self, scene: Scene, draws: Random) -> None:
        (_flip_left_right, _flip_top_bottom)[draws.randint(0, 1)](scene)


class Rotate(Operation):
    """Rotate, cut the corners off, and enlarge what is left to the size before; degrees."""

    name = "rotate"
    max_left_rotation: float = Field(ge=0.0, le=25.0)
    max_right_rotation: float = Field(ge=0.0, le=25.0)

    def apply(self, scene: Scene, draws: Random) -> None:
        width, height = scene.width, scene.height
        # Of a strip that is turned further nothing would be left.
        limit = math.degrees(math.atan(0.9 * min(width, height) / max(width, height)))
        degrees = _draw_rotation(self.max_left_rotation, self.max_right_rotation, draws)
        degrees = min(max(degrees, -limit), limit)
        rotation, full_width, full_height = _expanded(_rotation(degrees, width, height), width, height)
        ratio = math.tan(math.radians(abs(degrees)))
        # Augmentor's own formula, which is the largest rectangle but for the place of one division.
        left = ratio * (full_height - full_width * ratio) - ratio**2
        top = ratio * (full_width - left)
        for inset in range(4):
            # Rounded to whole pixels, below one degree, it would reach over the edge: the package knows no such angles.
            box = _at_least_a_pixel(left + inset, top + inset, full_width - left - inset, full_height - top - inset)
            if not leaves(rotation @ _crop(box, width, height), (width, height), (width, height)):
                break
        scene.warp(rotation @ _crop(box, width, height))


class RotateWithoutCrop(Operation):
    """Rotate, and fill the corners; degrees, of either sign. With `expand` the canvas grows to hold the whole image."""

    name = "rotate_without_crop"
    max_left_rotation: float = Field(ge=-1000, le=1000)
    max_right_rotation: float = Field(ge=-1000, le=1000)
    expand: bool = False
    fillcolor: str | tuple[int, int, int] | None = None

    @field_validator("fillcolor", mode="before")
    @classmethod
    def _a_colour(cls, colour: object) -> object:
        if isinstance(colour, str):
            ImageColor.getrgb(colour)
        if colour is None or isinstance(colour, str):
            return colour
        levels = tuple(colour) if isinstance(colour, list | tuple) else ()
        if len(levels) != 3 or not all(isinstance(level, int) and 0 <= level <= 255 for level in levels):
            raise ValueError("should be the name of a colour, or three levels from 0 to 255")
        return levels

    def apply(self, scene: Scene, draws: Random) -> None:
        degrees = _draw_rotation(abs(self.max_left_rotation), abs(self.max_right_rotation), draws)
        width, height = scene.width, scene.height
        rotation = _rotation(degrees, width, height)
        if self.expand:
            rotation, width, height = _expanded(rotation, width, height)
        scene.warp(rotation, width, height, fill=self._fill(scene.mode))

    def takes(self, mode: str) -> bool:
        """See `Operation.takes`."""
        return mode == "RGB" or not isinstance(self.fillcolor, tuple)

    def _fill(self, mode: str) -> Colour:
        """Return the colour as Pillow fills an image of that mode."""
        if not isinstance(self.fillcolor, str):
            return self.fillcolor or BLACK
        red, green, blue = Image.new(mode, (1, 1), self.fillcolor).convert("RGB").tobytes()
        return red, green, blue


class Zoom(Operation):
    """Enlarge by a factor, or below 1 make smaller on black, about the middle; the size stays.

    As in Augmentor the bounds of the factor may stand in either order.
    """

    name = "zoom"
    min_factor: float = Field(gt=0.0, le=100.0)
    max_factor: float = Field(gt=0.0, le=100.0)

    def apply(self, scene: Scene, draws: Random) -> None:
        factor = draws.uniform(self.min_factor, self.max_factor)
        width, height = max(round(scene.width * factor), 1), max(round(scene.height * factor), 1)
        left, top = math.floor(width / 2 - scene.width / 2), math.floor(height / 2 - scene.height / 2)
        scene.warp(scaling(scene.width / width, scene.height / height) @ shift(left, top))


class ZoomRandom(Operation):
    """Enlarge a part to the whole: `percentage_area` (0.1 to 1) is its share of each side, not of the area."""

    name = "zoom_random"
    percentage_area: float = Field(ge=0.1, lt=1.0)
    randomise_percentage_area: bool = False

    def apply(self, scene: Scene, draws: Random) -> None:
        box = _random_box(scene, _draw_share(self.percentage_area, self.randomise_percentage_area, draws), draws)
        scene.warp(_crop(box, scene.width, scene.height))


class CropBySize(Operation):
    """Cut out so many pixels, of the middle or anywhere; an image that is smaller stays as it is."""

    name = "crop_by_size"
    width: int = Field(ge=2)
    height: int = Field(ge=2)
    centre: bool = True

    def apply(self, scene: Scene, draws: Random) -> None:
        if self.width > scene.width or self.height > scene.height:
            return
        left, top = draws.randint(0, scene.width - self.width), draws.randint(0, scene.height - self.height)
        box = _centred_box(scene, self.width, self.height) if self.centre else _box(left, top, self.width, self.height)
        _cut(scene, box)


class _CropShare(Operation):
    percentage_area: float = Field(ge=0.1, lt=1.0)
    randomise_percentage_area: bool = False


class CropCentre(_CropShare):
    """Cut out the middle: `percentage_area` (0.1 to 1) is its share of each side, not of the area."""

    name = "crop_centre"

    def apply(self, scene: Scene, draws: Random) -> None:
        share = _draw_share(self.percentage_area, self.randomise_percentage_area, draws)
        left, top, right, bottom = _random_box(scene, share, draws)
        _cut(scene, _centred_box(scene, right - left, bottom - top))


class CropRandom(_CropShare):
    """Cut out a part anywhere: `percentage_area` (0.1 to 1) is its share of each side, not of the area."""

    name = "crop_random"

    def apply(self, scene: Scene, draws: Random) -> None:
        share = _draw_share(self.percentage_area, self.randomise_percentage_area, draws)
        _cut(scene, _random_box(scene, share, draws))


class Resize(Operation):
    """Scale to so many pixels. The model's own size follows in any case; pixels that are coarser stay coarse."""

    name = "resize"
    width: int = Field(ge=2, le=65_500)
    height: int = Field(ge=2, le=65_500)
    resample_filter: Literal["NEAREST", "BICUBIC", "ANTIALIAS", "BILINEAR"] = "BICUBIC"

    def apply(self, scene: Scene, draws: Random) -> None:
        _scale(scene, self.width, self.height)


class Scale(Operation):
    """Enlarge by a factor above 1."""

    name = "scale"
    scale_factor: float = Field(gt=1.0, le=100.0)

    def apply(self, scene: Scene, draws: Random) -> None:
        _scale(scene, int(scene.width * self.scale_factor), int(scene.height * self.scale_factor))


class Shear(Operation):
    """Shear along one of the sides, cut the corners off, and enlarge what is left to the size before; degrees."""

    name = "shear"
    max_shear_left: float = Field(gt=0.0, le=25.0)
    max_shear_right: float = Field(gt=0.0, le=25.0)

    def apply(self, scene: Scene, draws: Random) -> None:
        slope = math.tan(math.radians(draws.uniform(-self.max_shear_left, self.max_shear_right)))
        width, height = scene.width, scene.height
        along_x = draws.choice(["x", "y"]) == "x"
        # A strip that is sheared by more than its short side would have nothing left.
        limit = 0.9 * (width / height if along_x else height / width)
        slope = min(max(slope, -limit), limit)
        if along_x:
            cut = math.ceil(abs(slope) * height)
            sheared = np.array([[1.0, slope, -cut if slope > 0 else 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
            box = cut, 0, width, height
        else:
            cut = round(abs(slope) * width)
            sheared = np.array([[1.0, 0.0, 0.0], [slope, 1.0, -max(slope, 0.0) * width], [0.0, 0.0, 1.0]])
            box = 0, cut, width, height
        scene.warp(sheared @ _crop(box, width, height))


OPERATIONS: tuple[type[Operation], ...] = (
    CropBySize,
    CropCentre,
    CropRandom,
    FlipLeftRight,
    FlipRandom,
    FlipTopBottom,
    Resize,
    Rotate,
    Rotate180,
    Rotate270,
    Rotate90,
    RotateRandom90,
    RotateWithoutCrop,
    Scale,
    Shear,
    Zoom,
    ZoomRandom,
)

_Box = tuple[int, int, int, int]


def _quarter_turns(scene: Scene, turns: int) -> None:
    width, height = scene.width, scene.height
    if turns == 2:
        scene.warp(np.array([[-1.0, 0.0, width], [0.0, -1.0, height], [0.0, 0.0, 1.0]]))
    elif turns == 1:
        scene.warp(np.array([[0.0, -1.0, width], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), height, width)
    else:
        scene.warp(np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, height], [0.0, 0.0, 1.0]]), height, width)


def _flip_left_right(scene: Scene) -> None:
    scene.warp(shift(scene.width, 0) @ scaling(-1, 1))


def _flip_top_bottom(scene: Scene) -> None:
    scene.warp(shift(0, scene.height) @ scaling(1, -1))


def _draw_rotation(left: float, right: float, draws: Random) -> float:
    """Draw degrees, positive to the left."""
    angles = draws.uniform(-left, 0), draws.uniform(0, right)
    return angles[draws.randint(0, 1)]


def _rotation(degrees: float, width: int, height: int) -> Matrix:
    """Return the rotation about the middle of a canvas, to the left, from the new canvas to the old."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    rotation: Matrix = shift(width / 2, height / 2) @ turn @ shift(-width / 2, -height / 2)
    return rotation


def _expanded(rotation: Matrix, width: int, height: int) -> tuple[Matrix, int, int]:
    """Return a rotation to a canvas that holds all of the old one, and the size of that canvas, as Pillow's."""
    corners = np.linalg.inv(rotation) @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    # What rounding has added must not cost a pixel.
    low, high = np.floor(corners.min(axis=1) + 1e-9), np.ceil(corners.max(axis=1) - 1e-9)
    full_width, full_height = (int(size) for size in (high - low)[:2])
    return rotation @ shift((width - full_width) / 2, (height - full_height) / 2), full_width, full_height


def _crop(box: _Box, width: int, height: int) -> Matrix:
    """Return the map from a canvas to the part of another, (left, top, right, bottom), that is to fill it."""
    left, top, right, bottom = box
    return shift(left, top) @ scaling((right - left) / width, (bottom - top) / height)


def _cut(scene: Scene, box: _Box) -> None:
    scene.warp(shift(box[0], box[1]), box[2] - box[0], box[3] - box[1])


def _box(left: int, top: int, width: int, height: int) -> _Box:
    return left, top, left + width, top + height


def _random_box(scene: Scene, share: float, draws: Random) -> _Box:
    width, height = max(math.floor(scene.width * share), 1), max(math.floor(scene.height * share), 1)
    left, top = draws.randint(0, scene.width - width), draws.randint(0, scene.height - height)
    return _box(left, top, width, height)


def _centred_box(scene: Scene, width: int, height: int) -> _Box:
    x, y = scene.width / 2, scene.height / 2
    return _at_least_a_pixel(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _at_least_a_pixel(left: float, top: float, right: float, bottom: float) -> _Box:
    """Round a box, so that something is left of it."""
    return round(left), round(top), max(round(right), round(left) + 1), max(round(bottom), round(top) + 1)


def _draw_share(share: float, randomise: bool, draws: Random) -> float:
    return draws.uniform(0.1, share) if randomise else share


def _scale(scene: Scene, width: int, height: int) -> None:
    scene.warp(scaling(scene.width / width, scene.height / height), width, height)
    scene.coarsen()
