"""From what a scene has recorded to pixels: the image is interpolated once, however many operations there are.

An operation of geometry is the map that leads from its canvas back to the one before. Composed, these maps say for
every pixel of the result where in the frame it comes from. What changes colours follows in the recipe's order, on the
model's few pixels instead of the camera's many; consecutive tables of colours become one.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from dermaray.augmentation.pixel_map import Matrix, PixelMap, pixel_steps, scaling, shift
from dermaray.augmentation.scene import Adjust, Bend, Coarsen, Recolour, Repaint, Scene, Step, Warp
from dermaray.images.resize import UInt8Array, fit, fit_offset, frame_region, frame_shape, resize
from dermaray.images.spec import InputSpec

# Up to here interpolation alone still sees every pixel of the frame.
_ALIAS_FREE = 1.25


def render(scene: Scene, frame: UInt8Array, spec: InputSpec) -> UInt8Array:
    """Return what the model is to see.

    Args:
        scene: What was done to the image.
        frame: Of the original image, uint8 [rows, columns, 3]; see `dermaray.images.resize`.
        spec: The model's input.

    Returns:
        uint8 [*spec.shape], an array of its own; as `fit(frame, spec)` where nothing was done.
    """
    pixels = _Rendering(scene.original, frame, spec).run(scene.steps, _fitting(scene.height, scene.width, spec))
    # What nothing was done to is the frame itself, still.
    return _without_bars(pixels.copy() if pixels is frame else pixels, scene.height, scene.width, spec)


class _Rendering:
    """Turns steps into pixels, of a frame and at the size of the model's input."""

    def __init__(self, original: tuple[int, int], frame: UInt8Array, spec: InputSpec) -> None:
        self._original, self._frame, self._spec = original, frame, spec
        # By the position of the step that measures: a canvas on the way may be needed again for one further on.
        self._tables: dict[int, UInt8Array] = {}

    def run(self, steps: Sequence[Step], fitting: Matrix) -> UInt8Array:
        """Render what the steps have made; `fitting` leads from the result to the last canvas."""
        maps = [pixel_map := PixelMap(self._spec.shape[:2], fitting)]
        for step in reversed(steps):
            maps.append(pixel_map := _back(pixel_map, step))
        maps.reverse()
        moved = any(isinstance(step, Warp | Bend) for step in steps)
        pixels = self._sample(steps, fitting, maps[0]) if moved else fit(self._frame, self._spec)
        table: UInt8Array | None = None
        for index, step in enumerate(steps):
            if isinstance(step, Recolour):
                table = _chained(table, step.table)
            elif isinstance(step, Adjust):
                pixels = _looked_up(pixels, table)
                table = self._table(steps, index, step, pixels)
            elif isinstance(step, Repaint):
                pixels, table = step.paint(_looked_up(pixels, table), maps[index + 1]), None
        return _looked_up(pixels, table)

    def _table(self, steps: Sequence[Step], index: int, step: Adjust, pixels: UInt8Array) -> UInt8Array:
        """Measure the canvas at a step: the pixels, if they are all of it, else the canvas is rendered small."""
        if index not in self._tables:
            rows, columns = self._spec.shape[:2]
            later = any(isinstance(other, Warp | Bend) for other in steps[index:])
            if later or self._spec.resize != "stretch":
                whole = scaling(step.width / columns, step.height / rows)
                pixels = self.run([*steps[:index], Warp(np.eye(3))], whole)
            self._tables[index] = step.measure(pixels)
        return self._tables[index]

    def _sample(self, steps: Sequence[Step], fitting: Matrix, pixel_map: PixelMap) -> UInt8Array:
        """Interpolate in the frame; made smaller before, where the result is too coarse for its pixels."""
        rows, columns = self._frame.shape[:2]
        top, left, height, width = frame_region(*self._original, self._spec)
        across, down = self._finest_detail(steps, fitting)
        shrink_across, shrink_down = max(across * columns / width, 1.0), max(down * rows / height, 1.0)
        frame = self._frame
        if max(shrink_across, shrink_down) > _ALIAS_FREE:
            frame = resize(frame, (max(round(rows / shrink_down), 1), max(round(columns / shrink_across), 1)))
        on_frame = scaling(frame.shape[1] / width, frame.shape[0] / height) @ shift(-left, -top)
        return pixel_map.then(on_frame).sample(frame)

    def _finest_detail(self, steps: Sequence[Step], fitting: Matrix) -> tuple[float, float]:
        """Return the size, across and down, of the smallest detail that is seen, in pixels of the original.

        Displacements are left aside: they move much, but scale little.
        """
        to_original = np.eye(3)
        across = down = 0.0
        for step in steps:
            if isinstance(step, Warp):
                to_original = to_original @ step.matrix
            elif isinstance(step, Coarsen):
                seen = pixel_steps(to_original, step.width / 2, step.height / 2)
                across, down = max(across, seen[0]), max(down, seen[1])
        seen = PixelMap(self._spec.shape[:2], to_original @ fitting).steps()
        return max(across, seen[0]), max(down, seen[1])


def _fitting(height: int, width: int, spec: InputSpec) -> Matrix:
    """Return the map from the model's pixels to a canvas that is brought to a frame, and that fitted."""
    rows, columns = frame_shape(height, width, spec)
    top, left = fit_offset((rows, columns), spec)
    region_top, region_left, region_height, region_width = frame_region(height, width, spec)
    to_canvas = shift(region_left, region_top) @ scaling(region_width / columns, region_height / rows)
    return to_canvas @ shift(-left, -top)


def _without_bars(pixels: UInt8Array, height: int, width: int, spec: InputSpec) -> UInt8Array:
    """Make the bars black that `pad` adds: no operation has a part in them. Return an array that nobody else has."""
    if spec.resize != "pad":
        return pixels if pixels.flags.owndata and pixels.flags.writeable else pixels.copy()
    rows, columns = frame_shape(height, width, spec)
    top, left = fit_offset((rows, columns), spec)
    padded = np.zeros_like(pixels)
    padded[top : top + rows, left : left + columns] = pixels[top : top + rows, left : left + columns]
    return padded


def _back(pixel_map: PixelMap, step: Step) -> PixelMap:
    if isinstance(step, Warp):
        return pixel_map.then(step.matrix)
    return pixel_map.displaced(step.displacement) if isinstance(step, Bend) else pixel_map


def _chained(first: UInt8Array | None, second: UInt8Array) -> UInt8Array:
    """Return the table that looks up in one and then in the other; [256] or [256, 3] each."""
    if first is None:
        return second
    if second.ndim == 1:
        return second[first]
    by_channel = first if first.ndim == 2 else first[:, None]
    return np.take_along_axis(second, np.broadcast_to(by_channel, second.shape).astype(np.intp), axis=0)


def _looked_up(pixels: UInt8Array, table: UInt8Array | None) -> UInt8Array:
    if table is None:
        return pixels
    return np.asarray(cv2.LUT(pixels, table if table.ndim == 1 else table[:, None]), np.uint8)
