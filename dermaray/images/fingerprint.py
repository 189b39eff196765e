"""What tells whether two files show one picture: perceptual hashes of its eight orientations, and a small picture."""

from dataclasses import dataclass
from typing import TypeVar

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from dermaray.images.resize import UInt8Array
from dermaray.images.spec import InputSpec

ORIENTATIONS = 8
INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
"""The orientation that undoes each orientation: a quarter turn takes three more, a mirroring undoes itself."""

# The hash takes 32 x 32 pixels. Stretched to a square, a turned picture of any aspect ratio is the turned square; and
# the whole file is decoded, because what a decoder shrinks by itself depends on the size of the file.
THUMBNAIL_SHAPE = (32, 32)
FINGERPRINT_SPEC = InputSpec(height=64, width=64, resize="stretch", scaled_decoding=False)

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Fingerprint:
    """A picture in 1,088 bytes.

    Attributes:
        hashes: uint64 [8]. The perceptual hash of each orientation, in the order of `orient`, upright first. The most
            significant bit is the constant term of the cosine transform; the others follow row by row.
        thumbnail: uint8 [32, 32], grey, 0 to 255, upright: the whole frame, its aspect ratio lost.
    """

    hashes: npt.NDArray[np.uint64]
    thumbnail: UInt8Array


def fingerprint(pixels: UInt8Array) -> Fingerprint:
    """Return the fingerprint of one picture.

    The hash is pHash in `imagehash`'s reading: which of the 8 x 8 lowest frequencies of the cosine transform of the
    grey picture lie above their median (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions,
    2010). Half of its bits are set, so two hashes differ in an even number of bits.

    Args:
        pixels: uint8 [64, 64, 3], as `decode_image` gives them for `FINGERPRINT_SPEC`.

    Raises:
        ValueError: The pixels have another shape.
    """
    if pixels.shape != FINGERPRINT_SPEC.shape:
        raise ValueError(f"pixels must have the shape {FINGERPRINT_SPEC.shape}. Received: {pixels.shape}")
    grey = _halved(np.asarray(Image.fromarray(pixels).convert("L"), np.uint8))
    views = (np.ascontiguousarray(orient(grey, orientation)) for orientation in range(ORIENTATIONS))
    bits = np.stack([imagehash.phash(Image.fromarray(view)).hash.ravel() for view in views])
    return Fingerprint(np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64), grey)


def _halved(grey: UInt8Array) -> UInt8Array:
    """Halve both sides with weights that overlap, 1 3 3 1: of HAM10000's near duplicates a plain mean loses a seventh.

    Whole numbers, so that a turned picture is the turned result to the last bit.
    """
    wide = np.pad(grey.astype(np.int32), 1, mode="edge")
    for _ in range(2):
        wide = (wide[:-3:2] + 3 * (wide[1:-2:2] + wide[2:-1:2]) + wide[3::2]).T
    return ((wide + 32) // 64).astype(np.uint8)


def orient(pictures: npt.NDArray[_Scalar], orientation: int) -> npt.NDArray[_Scalar]:
    """Turn pictures to the left by 90 degrees `orientation % 4` times; from 4 on, mirror left and right after that.

    Args:
        pictures: Any dtype, [..., height, width].
        orientation: 0 to 7.

    Returns:
        A view of the input, [..., height, width], or [..., width, height] after an odd number of turns.
    """
    turned = np.rot90(pictures, orientation % 4, axes=(-2, -1))
    return turned[..., ::-1] if orientation >= 4 else turned
