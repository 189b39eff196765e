"""What a recipe does to one image, recorded operation by operation; `rendering` makes pixels of it at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dermaray.augmentation.pixel_map import Displacement, Matrix, PixelMap, leaves
from dermaray.images.resize import UInt8Array

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)

Paint = Callable[[UInt8Array, PixelMap], UInt8Array]
"""Changes pixels of the result, by where on its canvas each of them lies."""

Measure = Callable[[UInt8Array], UInt8Array]
"""Makes a table of colours, uint8 [256] or [256, 3], from the pixels of a whole canvas."""


@dataclass(frozen=True)
class Warp:
    """A new canvas, and the homography from its coordinates to those of the one before."""

    matrix: Matrix


@dataclass(frozen=True)
class Bend:
    """A new canvas of the same size, and where on the one before its points are."""

    displacement: Displacement


@dataclass(frozen=True)
class Coarsen:
    """Detail finer than the pixels of a canvas of this size is lost."""

    width: int
    height: int


@dataclass(frozen=True)
class Repaint:
    """Pixels change by where they lie."""

    paint: Paint


@dataclass(frozen=True)
class Recolour:
    """Colours change by a table, uint8 [256] or [256, 3]."""

    table: UInt8Array


@dataclass(frozen=True)
class Adjust:
    """Colours change by a table that depends on all pixels of the canvas, which has this size."""

    measure: Measure
    width: int
    height: int


Step = Warp | Bend | Coarsen | Repaint | Recolour | Adjust


class Scene:
    """One image on its way through a recipe.

    Attributes:
        original: (height, width) of the image, in pixels.
        width: Of the canvas as it is now, in pixels.
        height: The same.
        mode: Pillow's, which the image has now in Augmentor: `RGB`, `L` after `greyscale`, or `1` after
            `black_and_white`. Pixels have three channels here all the same; what is painted on them follows it.
        steps: What was done so far.
    """

    def __init__(self, height: int, width: int) -> None:
        self.original = self.height, self.width = height, width
        self.mode: Literal["RGB", "L", "1"] = "RGB"
        self.steps: list[Step] = []

    def warp(self, matrix: Matrix, width: int | None = None, height: int | None = None, fill: Colour = BLACK) -> None:
        """Take the image to a new canvas.

        Args:
            matrix: Homography from coordinates of the new canvas to those of the present one, float64 [3, 3].
            width: Of the new canvas, at least 1; None: as it is.
            height: The same.
            fill: What the new canvas shows where the present one has nothing.
        """
        width = self.width if width is None else width
        height = self.height if height is None else height
        if leaves(matrix, (width, height), (self.width, self.height)):
            self._fill_outside(fill)
        self.steps.append(Warp(matrix))
        self.width, self.height = width, height

    def bend(self, displacement: Displacement, *, may_leave: bool) -> None:
        """Move every point of the canvas; `may_leave` where that could lead beyond its edge, where all is black."""
        if may_leave:
            self._fill_outside(BLACK)
        self.steps.append(Bend(displacement))

    def coarsen(self) -> None:
        """Let the present canvas consist of pixels: finer detail of the image is lost."""
        self.steps.append(Coarsen(self.width, self.height))

    def repaint(self, paint: Paint) -> None:
        """Change pixels by where they lie on the present canvas."""
        self.steps.append(Repaint(paint))

    def recolour(self, table: UInt8Array) -> None:
        """Change colours by a table, uint8 [256] or [256, 3]."""
        self.steps.append(Recolour(table))

    def adjust(self, measure: Measure) -> None:
        """Change colours by a table that follows from the present canvas."""
        self.steps.append(Adjust(measure, self.width, self.height))

    def _fill_outside(self, colour: Colour) -> None:
        width, height = self.width, self.height

        def fill(pixels: UInt8Array, pixel_map: PixelMap) -> UInt8Array:
            outside = pixel_map.outside(0, 0, width, height)
            if not outside.any():
                return pixels
            filled = pixels.copy()
            filled[outside] = colour
            return filled

        self.repaint(fill)
