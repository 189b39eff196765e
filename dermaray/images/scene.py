"""What a recipe does to one image: recorded operation by operation, then rendered at once.

An operation of geometry takes the image to a new canvas, and is recorded as the map that leads back from there.
Composed, these maps say for every pixel of the result where in the frame it comes from: the image is interpolated once,
however many operations there are. What changes colours follows in the recipe's order, on the model's few pixels
instead of the camera's many; consecutive tables of colours become one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dermaray.images.mapping import Displacement, Mapping, Matrix, leaves, pixel_steps, scaling, shift
from dermaray.images.resize import UInt8Array, fit, resize
from dermaray.images.spec import InputSpec

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)

# Up to here interpolation alone still sees every pixel of the frame.
_ALIAS_FREE = 1.25


@dataclass(frozen=True)
class _Warp:
    matrix: Matrix


@dataclass(frozen=True)
class _Bend:
    displacement: Displacement


@dataclass(frozen=True)
class _Coarsen:
    width: int
    height: int


@dataclass(frozen=True)
class _Paint:
    paint: Callable[[UInt8Array, Mapping], UInt8Array]


@dataclass(frozen=True)
class _Recolour:
    table: Callable[[UInt8Array], UInt8Array]
    width: int
    height: int
    measures: bool


_Step = _Warp | _Bend | _Coarsen | _Paint | _Recolour


class Scene:
    """One image on its way through a recipe.

    Attributes:
        width: Of the canvas as it is now, in pixels of the original image.
        height: The same.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._original = (width, height)
        self._steps: list[_Step] = []

    def warp(self, matrix: Matrix, width: int | None = None, height: int | None = None, fill: Colour = BLACK) -> None:
        """Take the image to a new canvas.

        Args:
            matrix: Homography from coordinates of the new canvas to those of the present one, float64 [3, 3].
            width: Of the new canvas; None: as it is.
            height: The same.
            fill: What the new canvas shows where the present one has nothing.
        """
        width, height = width or self.width, height or self.height
        if leaves(matrix, (width, height), (self.width, self.height)):
            self._fill_outside(fill)
        self._steps.append(_Warp(matrix))
        self.width, self.height = width, height

    def bend(self, displacement: Displacement, *, may_leave: bool) -> None:
        """Move every point of the canvas; `may_leave` where that could lead beyond its edge, where all is black."""
        if may_leave:
            self._fill_outside(BLACK)
        self._steps.append(_Bend(displacement))

    def coarsen(self) -> None:
        """Let the present canvas consist of pixels: detail that is finer than they are is lost."""
        self._steps.append(_Coarsen(self.width, self.height))

    def paint(self, paint: Callable[[UInt8Array, Mapping], UInt8Array]) -> None:
        """Change pixels by where they lie on the present canvas, which their `Mapping` tells."""
        self._steps.append(_Paint(paint))

    def recolour(self, table: Callable[[UInt8Array], UInt8Array], *, measures: bool = False) -> None:
        """Change colours by a table, uint8 [256] or [256, 3].

        Args:
            table: Makes it, given pixels, uint8 [rows, columns, 3].
            measures: Whether it depends on them: then they are the whole of the present canvas.
        """
        self._steps.append(_Recolour(table, self.width, self.height, measures))

    def render(self, frame: UInt8Array, spec: InputSpec) -> UInt8Array:
        """Return what the model is to see.

        Args:
            frame: Of the original image, uint8 [rows, columns, 3]; see `dermaray.images.resize`.
            spec: The model's input.

        Returns:
            uint8 [*spec.shape]; just `fit(frame, spec)` where nothing happened.
        """
        fitting = _fitting(self.width, self.height, spec)
        pixels = _Rendering(frame, self._original, spec).run(self._steps, fitting)
        if spec.resize == "pad" and self._steps:
            pixels = _filled(pixels, Mapping(spec.shape[:2], fitting), self.width, self.height, BLACK)
        return pixels

    def _fill_outside(self, colour: Colour) -> None:
        width, height = self.width, self.height
        self.paint(lambda pixels, mapping: _filled(pixels, mapping, width, height, colour))


class _Rendering:
    """Turns steps into pixels, of a frame and at the size of the model's input."""

    def __init__(self, frame: UInt8Array, original: tuple[int, int], spec: InputSpec) -> None:
        self._frame, self._original, self._spec = frame, original, spec

    def run(self, steps: Sequence[_Step], fitting: Matrix) -> UInt8Array:
        """Render what the steps have made; `fitting` leads from the result to the last canvas."""
        mappings = [mapping := Mapping(self._spec.shape[:2], fitting)]
        for step in reversed(steps):
            mappings.append(mapping := _back(mapping, step))
        mappings.reverse()
        bends = [isinstance(step, _Warp | _Bend) for step in steps]
        pixels = self._sample(steps, fitting, mappings[0]) if any(bends) else fit(self._frame, self._spec)
        table: UInt8Array | None = None
        for index, step in enumerate(steps):
            if isinstance(step, _Recolour) and not step.measures:
                new = step.table(pixels)
                table = new if table is None else _chained(table, new)
            elif isinstance(step, _Paint | _Recolour):
                pixels, table = _looked_up(pixels, table), None
                if isinstance(step, _Paint):
                    pixels = step.paint(pixels, mappings[index + 1])
                else:
                    shown = self._spec.resize == "stretch" and not any(bends[index:])
                    table = step.table(pixels if shown else self._canvas(steps[:index], step))
        return _looked_up(pixels, table)

    def _canvas(self, steps: Sequence[_Step], at: _Recolour) -> UInt8Array:
        """Render the whole of a canvas on the way, of which the result shows another part."""
        rows, columns = self._spec.shape[:2]
        return self.run([*steps, _Warp(np.eye(3))], scaling(at.width / columns, at.height / rows))

    def _sample(self, steps: Sequence[_Step], fitting: Matrix, mapping: Mapping) -> UInt8Array:
        """Interpolate in the frame; made smaller before, where the result is too coarse for its pixels."""
        rows, columns = self._frame.shape[:2]
        width, height = self._original
        across, down = self._finest_detail(steps, fitting)
        shrink_across, shrink_down = across * columns / width, down * rows / height
        frame = self._frame
        if max(shrink_across, shrink_down) > _ALIAS_FREE:
            smaller = round(rows / max(shrink_down, 1.0)), round(columns / max(shrink_across, 1.0))
            frame = resize(frame, (max(smaller[0], 1), max(smaller[1], 1)))
        return mapping.then(scaling(frame.shape[1] / width, frame.shape[0] / height)).sample(frame)

    def _finest_detail(self, steps: Sequence[_Step], fitting: Matrix) -> tuple[float, float]:
        """Return the size, across and down, of the smallest detail that is seen, in pixels of the original.

        Displacements are left aside: they move much, but scale little.
        """
        to_original = np.eye(3)
        across = down = 0.0
        for step in steps:
            if isinstance(step, _Warp):
                to_original = to_original @ step.matrix
            elif isinstance(step, _Coarsen):
                seen = pixel_steps(to_original, step.width / 2, step.height / 2)
                across, down = max(across, seen[0]), max(down, seen[1])
        seen = Mapping(self._spec.shape[:2], to_original @ fitting).steps()
        return max(across, seen[0]), max(down, seen[1])


def _fitting(width: int, height: int, spec: InputSpec) -> Matrix:
    """Return the map from the model's pixels to a canvas that is fitted into them."""
    rows, columns = spec.shape[:2]
    across, down = width / columns, height / rows
    if spec.resize == "stretch":
        return scaling(across, down)
    step = max(across, down) if spec.resize == "pad" else min(across, down)
    return shift(width / 2, height / 2) @ scaling(step, step) @ shift(-columns / 2, -rows / 2)


def _back(mapping: Mapping, step: _Step) -> Mapping:
    if isinstance(step, _Warp):
        return mapping.then(step.matrix)
    return mapping.displaced(step.displacement) if isinstance(step, _Bend) else mapping


def _filled(pixels: UInt8Array, mapping: Mapping, width: int, height: int, colour: Colour) -> UInt8Array:
    outside = mapping.outside(0, 0, width, height)
    if not outside.any():
        return pixels
    filled = pixels.copy()
    filled[outside] = colour
    return filled


def _chained(first: UInt8Array, second: UInt8Array) -> UInt8Array:
    """Return the table that looks up in one and then in the other; [256] or [256, 3] each."""
    if second.ndim == 1:
        return second[first]
    by_channel = first if first.ndim == 2 else first[:, None]
    return np.take_along_axis(second, np.broadcast_to(by_channel, second.shape).astype(np.intp), axis=0)


def _looked_up(pixels: UInt8Array, table: UInt8Array | None) -> UInt8Array:
    return (
        pixels if table is None else np.asarray(cv2.LUT(pixels, table if table.ndim == 1 else table[:, None]), np.uint8)
    )
