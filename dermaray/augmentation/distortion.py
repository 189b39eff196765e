"""Augmentor's skews and elastic distortions, as maps from the new canvas back to the old."""

import math
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from dermaray.augmentation.operation import Operation
from dermaray.augmentation.pixel_map import Float32Array, Points
from dermaray.augmentation.scene import Scene

# What each direction moves, in units of the skew: x and y of the corners, from the top left clockwise.
_TILTS = (
    ((0, -1), (0, 0), (0, 0), (0, 1)),
    ((0, 0), (0, -1), (0, 1), (0, 0)),
    ((-1, 0), (1, 0), (0, 0), (0, 0)),
    ((0, 0), (0, 0), (1, 0), (-1, 0)),
)
_CORNERS = (
    ((-1, 0), (0, 0), (0, 0), (0, 0)),
    ((0, -1), (0, 0), (0, 0), (0, 0)),
    ((0, 0), (1, 0), (0, 0), (0, 0)),
    ((0, 0), (0, -1), (0, 0), (0, 0)),
    ((0, 0), (0, 0), (1, 0), (0, 0)),
    ((0, 0), (0, 0), (0, 1), (0, 0)),
    ((0, 0), (0, 0), (0, 0), (-1, 0)),
    ((0, 0), (0, 0), (0, 0), (0, 1)),
)
_SAMPLES = 128
_KINDS = ["TILT", "TILT_LEFT_RIGHT", "TILT_TOP_BOTTOM", "CORNER"]


class _Skew(Operation):
    """Look at the image from aside: one or two corners move outward, at most by `magnitude` of the longer side."""

    kind: ClassVar[str]
    magnitude: float = Field(1.0, gt=0.0, le=1.0)

    def apply(self, scene: Scene, draws: Random) -> None:
        width, height = scene.width, scene.height
        amount = draws.randint(1, math.ceil(max(width, height) * self.magnitude))
        kind = draws.choice(_KINDS) if self.kind == "RANDOM" else self.kind
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        moved = corners + amount * np.array(_moves(kind, draws), np.float32)
        scene.warp(cv2.getPerspectiveTransform(moved, corners))


class Skew(_Skew):
    """Skew in any of the ways below."""

    name = "skew"
    kind = "RANDOM"


class SkewTilt(_Skew):
    """Tilt away to the left, to the right, forward or backward."""

    name = "skew_tilt"
    kind = "TILT"


class SkewLeftRight(_Skew):
    """Tilt away to the left or to the right."""

    name = "skew_left_right"
    kind = "TILT_LEFT_RIGHT"


class SkewTopBottom(_Skew):
    """Tilt forward or backward."""

    name = "skew_top_bottom"
    kind = "TILT_TOP_BOTTOM"


class SkewCorner(_Skew):
    """Move one corner."""

    name = "skew_corner"
    kind = "CORNER"


class _Distortion(Operation):
    """Lay a grid over the image, move its inner nodes, and drag along what lies between; pixels."""

    grid_width: int = Field(ge=1, le=100)
    grid_height: int = Field(ge=1, le=100)

    def apply(self, scene: Scene, draws: Random) -> None:
        x, y = _nodes(scene.width, self.grid_width), _nodes(scene.height, self.grid_height)
        moves = np.zeros((len(y), len(x), 2), np.float32)
        for row in range(1, len(y) - 1):
            for column in range(1, len(x) - 1):
                moves[row, column] = self._move(x[column] / scene.width, y[row] / scene.height, draws)
        width, height = scene.width, scene.height
        may_leave = bool(np.abs(moves).max() > min(x[1], y[1]))
        scene.bend(lambda points: _moved(points, width, height, moves), may_leave=may_leave)

    def _move(self, x: float, y: float, draws: Random) -> tuple[float, float]:
        raise NotImplementedError


class RandomDistortion(_Distortion):
    """Move each node by whole pixels, at most `magnitude` either way."""

    name = "random_distortion"
    magnitude: int = Field(ge=-1000, le=1000)

    def _move(self, x: float, y: float, draws: Random) -> tuple[float, float]:
        largest = abs(self.magnitude)
        return draws.randint(-largest, largest), draws.randint(-largest, largest)


class GaussianDistortion(_Distortion):
    """Move each node by normal draws, whose deviation, at most `magnitude` pixels, follows a bell over the image.

    `corner` says which quarter of the bell is laid over the image, or all of it; `out` turns it upside down; `mex` and
    `mey` are its middle, `sdx` and `sdy` its widths, in shares of the sides.
    """

    name = "gaussian_distortion"
    magnitude: float = Field(ge=-1000, le=1000)
    corner: Literal["bell", "ul", "ur", "dl", "dr"]
    method: Literal["in", "out"]
    mex: float = Field(0.5, ge=-10, le=10)
    mey: float = Field(0.5, ge=-10, le=10)
    sdx: float = Field(0.05, ge=1e-3, le=1e3)
    sdy: float = Field(0.05, ge=1e-3, le=1e3)

    def _move(self, x: float, y: float, draws: Random) -> tuple[float, float]:
        deviation = self._bell(x, y)
        return draws.gauss(0, deviation), draws.gauss(0, deviation)

    def _bell(self, x: float, y: float) -> float:
        left, top = {"dr": (0, 0), "dl": (0.5, 0), "ur": (0, 0.5), "ul": (0.5, 0.5), "bell": (0, 0)}[self.corner]
        share = 1.0 if self.corner == "bell" else 0.5
        low, high = _range_of_bell(self.mex, self.mey, self.sdx, self.sdy)
        bell = math.exp(-_exponent(left + x * share, top + y * share, self.mex, self.mey, self.sdx, self.sdy))
        # A bell that stands far off the image is flat on it.
        level = (bell - low) / (high - low) if high > low else 0.0
        return max(1 - level if self.method == "out" else level, 0.01) * abs(self.magnitude)


OPERATIONS: tuple[type[Operation], ...] = (
    GaussianDistortion,
    RandomDistortion,
    Skew,
    SkewCorner,
    SkewLeftRight,
    SkewTilt,
    SkewTopBottom,
)


def _moves(kind: str, draws: Random) -> Sequence[tuple[int, int]]:
    if kind == "CORNER":
        return _CORNERS[draws.randint(0, 7)]
    first, last = {"TILT": (0, 3), "TILT_LEFT_RIGHT": (0, 1), "TILT_TOP_BOTTOM": (2, 3)}[kind]
    return _TILTS[draws.randint(first, last)]


def _nodes(side: int, cells: int) -> list[int]:
    """Return where a grid cuts a side: cells of whole pixels, the last as large as what remains."""
    cells = min(cells, side)
    return [*range(0, (side // cells) * cells, side // cells), side]


def _moved(points: Points, width: int, height: int, moves: Float32Array) -> Points:
    """Move points by what lies between the nodes around them, moves of which are [rows, columns, 2]."""
    x, y = points
    down, across = _weights(height, moves.shape[0] - 1), _weights(width, moves.shape[1] - 1)
    # Samples of the field are so close that how OpenCV rounds between them is some hundredths of a pixel.
    on_samples = x * np.float32((len(across) - 1) / width), y * np.float32((len(down) - 1) / height)
    by_x, by_y = (
        cv2.remap(down @ moves[..., axis] @ across.T, *on_samples, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for axis in (0, 1)
    )
    return x + by_x, y + by_y


@lru_cache
def _weights(side: int, cells: int) -> Float32Array:
    """Return what each node counts at equally spaced samples of a side, float32 [samples, nodes]."""
    nodes = _nodes(side, cells)
    samples = np.linspace(0, side, max(_SAMPLES, 8 * cells) + 1)
    return np.stack([np.interp(samples, nodes, one) for one in np.eye(len(nodes))], axis=1).astype(np.float32)


def _exponent(x: float, y: float, mex: float, mey: float, sdx: float, sdy: float) -> float:
    return (x - mex) ** 2 / sdx + (y - mey) ** 2 / sdy


@lru_cache
def _range_of_bell(mex: float, mey: float, sdx: float, sdy: float) -> tuple[float, float]:
    """Return the least and the greatest value that the bell has over the unit square, on Augmentor's grid of 50."""
    along = np.linspace(0, 1)
    bell = np.exp(-(((along - mex) ** 2 / sdx)[:, None] + (along - mey) ** 2 / sdy))
    return float(bell.min()), float(bell.max())
