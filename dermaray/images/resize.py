"""From a picture of any size to the pixels that a model takes, in two steps.

The frame is the whole picture at the model's scale. What a model takes is the frame itself, its middle, or the frame
on black, as `InputSpec.resize` says. Training keeps frames, so that augmentation may still reach what `fit` cuts off.
"""

import cv2
import numpy as np
import numpy.typing as npt

from dermaray.images.spec import InputSpec

UInt8Array = npt.NDArray[np.uint8]

MAX_FRAME_ASPECT = 4
"""Of a picture that is to be cropped a frame keeps so many times what the crop keeps: a strip has no end otherwise."""


def frame_shape(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Return the (rows, columns) of the frame of a picture of `height` x `width` pixels."""
    if spec.resize == "stretch":
        return spec.height, spec.width
    rows, columns = spec.height / height, spec.width / width
    scale = min(rows, columns) if spec.resize == "pad" else max(rows, columns)
    if spec.resize == "pad":
        return min(max(round(height * scale), 1), spec.height), min(max(round(width * scale), 1), spec.width)
    return (
        min(max(round(height * scale), spec.height), MAX_FRAME_ASPECT * spec.height),
        min(max(round(width * scale), spec.width), MAX_FRAME_ASPECT * spec.width),
    )


def frame_region(height: int, width: int, spec: InputSpec) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of what a frame shows of its picture: all, but for the ends of a strip."""
    if spec.resize != "crop":
        return 0, 0, height, width
    rows = min(height, -(-MAX_FRAME_ASPECT * spec.height * width // spec.width))
    columns = min(width, -(-MAX_FRAME_ASPECT * spec.width * height // spec.height))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def to_frame(pixels: UInt8Array, shape: tuple[int, int], spec: InputSpec) -> UInt8Array:
    """Scale a whole picture to its frame.

    Args:
        pixels: uint8 [h, w, 3], upright: the picture at any scale.
        shape: What `frame_shape` gave for the picture.
        spec: What the model wants.

    Returns:
        uint8 [*shape, 3].
    """
    top, left, height, width = frame_region(pixels.shape[0], pixels.shape[1], spec)
    return resize(pixels[top : top + height, left : left + width], shape)


def fit(frame: UInt8Array, spec: InputSpec) -> UInt8Array:
    """Cut or pad a frame to what the model takes: uint8 [*frame_shape, 3] to uint8 [*spec.shape]."""
    if frame.shape == spec.shape:
        return frame
    top, left = fit_offset(frame.shape[:2], spec)
    if spec.resize == "crop":
        return np.ascontiguousarray(frame[-top : -top + spec.height, -left : -left + spec.width])
    padded = np.zeros(spec.shape, np.uint8)
    padded[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return padded


def fit_offset(shape: tuple[int, ...], spec: InputSpec) -> tuple[int, int]:
    """Return (top, left) of a frame of that shape in what the model takes; negative where it is cut."""
    return (spec.height - shape[0]) // 2, (spec.width - shape[1]) // 2


def resize(pixels: UInt8Array, shape: tuple[int, int]) -> UInt8Array:
    """Scale to (rows, columns), so that hair does not alias into noise.

    Down to half of a side between neighbouring pixels, which then still sees all of them; below by the mean of the
    area. Above a half the two are equally far from a Lanczos reduction, and the mean takes four times as long.
    """
    rows, columns = shape
    height, width = pixels.shape[:2]
    if (height, width) == shape:
        return pixels
    if height > 2 * rows or width > 2 * columns:
        # OpenCV averages areas only where both sides shrink.
        pixels = _scaled(pixels, (min(rows, height), min(columns, width)), cv2.INTER_AREA)
    return pixels if pixels.shape[:2] == shape else _scaled(pixels, shape, cv2.INTER_LINEAR)


def shrink(pixels: UInt8Array, longest: int) -> UInt8Array:
    """Scale down in proportion, so that no side has more pixels than `longest`; smaller pictures stay as they are."""
    rows, columns = pixels.shape[:2]
    scale = min(1.0, longest / max(rows, columns))
    return resize(pixels, (max(round(rows * scale), 1), max(round(columns * scale), 1)))


def _scaled(pixels: UInt8Array, shape: tuple[int, int], interpolation: int) -> UInt8Array:
    return np.asarray(cv2.resize(pixels, shape[::-1], interpolation=interpolation), np.uint8)
