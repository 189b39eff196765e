"""Where the pixels of a result come from: maps of coordinates, composed before anything is interpolated.

Coordinates are continuous: a canvas of `width` pixels reaches from 0 to `width`, and pixel centres lie at halves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dermaray.images.resize import UInt8Array

Matrix = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Points = tuple[Float32Array, Float32Array]
Displacement = Callable[[Points], Points]


@dataclass(frozen=True)
class PixelMap:
    """Where on some canvas the pixels of a result lie: a homography, or where it bends, a point for each and the rest.

    Attributes:
        shape: (rows, columns) of the result.
        matrix: From coordinates of the result, or from the points, to those of the canvas, float64 [3, 3].
        bent: x and y of every pixel on the canvas that was bent last, float32 [rows, columns] each; None: none was.
    """

    shape: tuple[int, int]
    matrix: Matrix
    bent: Points | None = None

    def then(self, matrix: Matrix) -> "PixelMap":
        """Go on to the canvas that a homography leads to."""
        return PixelMap(self.shape, matrix @ self.matrix, self.bent)

    def displaced(self, displacement: Displacement) -> "PixelMap":
        """Go on to the canvas that moving each point leads to."""
        return PixelMap(self.shape, np.eye(3), displacement(self.points()))

    def points(self) -> Points:
        """Return x and y of every pixel on the canvas, float32 [rows, columns] each."""
        if self.bent is not None:
            return _project(self.matrix, *self.bent)
        rows, columns = self.shape
        x, y = np.arange(columns, dtype=np.float32) + 0.5, np.arange(rows, dtype=np.float32)[:, None] + 0.5
        return _project(self.matrix, x, y)

    def part(self, rows: slice, columns: slice) -> "PixelMap":
        """Return the same of a part of the result; slices with both ends."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        if self.bent is not None:
            return PixelMap(shape, self.matrix, (self.bent[0][rows, columns], self.bent[1][rows, columns]))
        return PixelMap(shape, self.matrix @ shift(columns.start, rows.start))

    def sample(self, pixels: UInt8Array) -> UInt8Array:
        """Interpolate, bicubically, in an image that fills the canvas; beyond its edge the edge goes on."""
        if self.bent is not None:
            # OpenCV counts from the centre of the first pixel.
            x, y = self.then(shift(-0.5, -0.5)).points()
            sampled = cv2.remap(pixels, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        else:
            centred = shift(-0.5, -0.5) @ self.matrix @ shift(0.5, 0.5)
            flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            sampled = cv2.warpPerspective(
                pixels, centred, self.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
        return np.asarray(sampled, np.uint8)

    def steps(self) -> tuple[float, float]:
        """Return how far on the canvas, across and down, neighbouring pixels lie apart, in the middle of the result."""
        rows, columns = self.shape
        if self.bent is None:
            return pixel_steps(self.matrix, columns / 2, rows / 2)
        row, column = rows // 2, columns // 2
        across, down = (
            math.hypot(p[row, column] - p[row, column - 1], p[row, column] - p[row - 1, column]) for p in self.points()
        )
        return across, down

    def outside(self, left: float, top: float, right: float, bottom: float) -> npt.NDArray[np.bool_]:
        """Tell which pixels lie outside a rectangle of the canvas."""
        x, y = self.points()
        outside: npt.NDArray[np.bool_] = (x < left) | (y < top) | (x >= right) | (y >= bottom)
        return outside


def shift(x: float, y: float) -> Matrix:
    """Return the homography that adds to coordinates."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scaling(x: float, y: float) -> Matrix:
    """Return the homography that multiplies coordinates."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def leaves(matrix: Matrix, canvas: tuple[int, int], target: tuple[int, int]) -> bool:
    """Tell whether a homography leads some of a (width, height) canvas more than a pixel out of the target."""
    for x, y in ((0, 0), (canvas[0], 0), (0, canvas[1]), canvas):
        across, down, depth = (row[0] * x + row[1] * y + row[2] for row in matrix.tolist())
        if depth <= 0 or not (-1 <= across / depth <= target[0] + 1 and -1 <= down / depth <= target[1] + 1):
            return True
    return False


def pixel_steps(matrix: Matrix, x: float, y: float) -> tuple[float, float]:
    """Return how far, across and down, a homography's target is passed when x or y go one pixel on."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    depth = g * x + h * y + i
    across, down = (a * x + b * y + c) / depth, (d * x + e * y + f) / depth
    return (
        math.hypot(a - across * g, b - across * h) / abs(depth),
        math.hypot(d - down * g, e - down * h) / abs(depth),
    )


def _project(matrix: Matrix, x: Float32Array, y: Float32Array) -> Points:
    """Apply a homography to points: x and y of any shapes that fit each other."""
    a, b, c = matrix.astype(np.float32)
    across, down = a[0] * x + (a[1] * y + a[2]), b[0] * x + (b[1] * y + b[2])
    if c[0] == 0 and c[1] == 0:
        return across / c[2], down / c[2]
    depth = c[0] * x + (c[1] * y + c[2])
    return across / depth, down / depth
