import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from dermaray.data.synthetic import render_lesion
from dermaray.images.decode import decode_image
from dermaray.images.fingerprint import FINGERPRINT_SPEC, INVERSE, ORIENTATIONS, Fingerprint, fingerprint, orient
from dermaray.images.resize import UInt8Array

TRANSPOSE = Image.Transpose
# What Pillow calls each orientation; turning left and then mirroring is one reflection.
PILLOW = (
    None,
    TRANSPOSE.ROTATE_90,
    TRANSPOSE.ROTATE_180,
    TRANSPOSE.ROTATE_270,
    TRANSPOSE.FLIP_LEFT_RIGHT,
    TRANSPOSE.TRANSVERSE,
    TRANSPOSE.FLIP_TOP_BOTTOM,
    TRANSPOSE.TRANSPOSE,
)


def decode(image: Image.Image) -> UInt8Array:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return decode_image(buffer.getvalue(), FINGERPRINT_SPEC).pixels


def drawing(seed: int = 0) -> Image.Image:
    return Image.fromarray(render_lesion("melanoma", seed))


def turned(pixels: UInt8Array, orientation: int) -> UInt8Array:
    return np.ascontiguousarray(np.moveaxis(orient(np.moveaxis(pixels, -1, 0), orientation), 0, -1))


def test_a_fingerprint_is_eight_hashes_and_a_grey_thumbnail() -> None:
    pixels = decode(drawing())
    seen = fingerprint(pixels)
    assert isinstance(seen, Fingerprint)
    assert (seen.hashes.shape, seen.hashes.dtype) == ((8,), np.uint64)
    assert (seen.thumbnail.shape, seen.thumbnail.dtype) == ((32, 32), np.uint8)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    # The frame's edge goes on beyond it.
    wide = np.pad(grey, 1, mode="edge")
    weights = np.array([1, 3, 3, 1]) / 8
    blocks = np.lib.stride_tricks.sliding_window_view(wide, (4, 4))[::2, ::2]
    assert np.abs(seen.thumbnail - np.einsum("yxij,i,j->yx", blocks, weights, weights)).max() <= 1


def test_the_hash_is_that_of_the_published_package() -> None:
    seen = fingerprint(decode(drawing()))
    assert int(seen.hashes[0]) == int(str(imagehash.phash(Image.fromarray(seen.thumbnail))), 16)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_each_hash_is_that_of_its_orientation(orientation: int, seed: int) -> None:
    pixels = decode(drawing(seed))
    assert fingerprint(turned(pixels, orientation)).hashes[0] == fingerprint(pixels).hashes[orientation]


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_a_turned_file_of_another_shape_has_the_hash_of_its_orientation(orientation: int) -> None:
    image, way = drawing(), PILLOW[orientation]
    other = image if way is None else image.transpose(way)
    assert (other.size == image.size) == (orientation % 2 == 0)
    difference = fingerprint(decode(other)).hashes[0] ^ fingerprint(decode(image)).hashes
    assert np.bitwise_count(difference[orientation]) <= 2
    assert np.argmin(np.bitwise_count(difference)) == orientation


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_every_orientation_can_be_undone(orientation: int) -> None:
    picture = np.arange(6).reshape(2, 3)
    assert np.array_equal(orient(orient(picture, orientation), INVERSE[orientation]), picture)


def test_the_orientations_differ() -> None:
    picture = np.arange(9).reshape(3, 3)
    assert len({orient(picture, orientation).tobytes() for orientation in range(ORIENTATIONS)}) == 8


def test_pixels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(64, 64, 3\).*\(32, 32, 3\)"):
        fingerprint(np.zeros((32, 32, 3), np.uint8))
