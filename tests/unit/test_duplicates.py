import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dermaray.data.duplicates import LARGE_SET, RADIUS, THRESHOLD, Pairs, near_duplicates
from dermaray.data.synthetic import render_lesion
from dermaray.images.decode import decode_image
from dermaray.images.fingerprint import FINGERPRINT_SPEC, INVERSE, ORIENTATIONS, Fingerprint, fingerprint, orient
from dermaray.images.resize import UInt8Array

CLASSES = ("actinic keratosis", "basal cell carcinoma", "dermatofibroma", "melanoma", "nevus", "vascular lesion")
Hashes = npt.NDArray[np.uint64]


def drawing(seed: int = 0, diagnosis: str = "melanoma") -> Image.Image:
    return Image.fromarray(render_lesion(diagnosis, seed))


def seen(image: Image.Image, quality: int = 90) -> Fingerprint:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return fingerprint(decode_image(buffer.getvalue(), FINGERPRINT_SPEC).pixels)


def compare(*pictures: Fingerprint) -> Pairs:
    return near_duplicates(np.stack([p.hashes for p in pictures]), np.stack([p.thumbnail for p in pictures]))


def rows_of(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def clusters(pairs: Pairs, rows: int) -> int:
    graph = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(rows, rows))
    return int(connected_components(graph, directed=False)[0])


def noise(rng: np.random.Generator, count: int) -> UInt8Array:
    """Return thumbnails [count, 32, 32] that have details and nothing in common."""
    return rng.integers(0, 256, (count, 32, 32)).astype(np.uint8)


def flip(rng: np.random.Generator, value: np.uint64, bits: int) -> np.uint64:
    return value ^ np.uint64(sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_a_turned_or_mirrored_copy_is_found(orientation: int, seed: int) -> None:
    image = drawing(seed)
    turned = Image.fromarray(np.moveaxis(orient(np.moveaxis(np.asarray(image), -1, 0), orientation), 0, -1).copy())
    pairs = compare(seen(image), seen(turned))
    assert rows_of(pairs) == [(0, 1)]
    assert pairs.orientation.tolist() == [orientation]
    assert compare(seen(turned), seen(image)).orientation.tolist() == [INVERSE[orientation]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image.resize((image.width // 2, image.height // 2)),
        lambda image: image.resize((image.width * 2, image.height * 2)),
        lambda image: image.resize((180, 180)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        lambda image: ImageEnhance.Contrast(image).enhance(1.1),
        lambda image: image.filter(ImageFilter.GaussianBlur(1)),
        lambda image: image.convert("RGB", (1.05, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0.9, 0)),
        ImageOps.grayscale,
    ],
    ids=["same", "half", "double", "square", "darker", "contrast", "blur", "cast", "grey"],
)
@pytest.mark.parametrize("quality", [30, 90])
def test_a_re_encoded_copy_is_found(change: Any, quality: int, seed: int) -> None:
    pairs = compare(seen(drawing(seed)), seen(drawing(seed + 100)), seen(change(drawing(seed)), quality))
    assert rows_of(pairs) == [(0, 2)]
    assert pairs.orientation.tolist() == [0]
    assert THRESHOLD <= pairs.similarity[0] <= 1 + 1e-6


@pytest.fixture(scope="module")
def drawings() -> list[Fingerprint]:
    return [seen(drawing(seed, diagnosis)) for seed in range(15) for diagnosis in CLASSES]


def test_different_pictures_are_not_found(drawings: list[Fingerprint]) -> None:
    assert rows_of(compare(*drawings)) == []


def test_different_pictures_in_one_hash_are_told_apart(drawings: list[Fingerprint]) -> None:
    one = np.repeat(drawings[0].hashes[None], len(drawings), axis=0)
    assert rows_of(near_duplicates(one, np.stack([d.thumbnail for d in drawings]))) == []


def test_a_frame_that_all_pictures_share_does_not_make_them_alike() -> None:
    framed = [seen(ImageOps.expand(ImageOps.expand(drawing(seed), 20), 20, fill="white")) for seed in range(20)]
    one = np.repeat(framed[0].hashes[None], len(framed), axis=0)
    assert rows_of(near_duplicates(one, np.stack([f.thumbnail for f in framed]))) == []


def test_pictures_without_details_are_duplicates_of_nothing() -> None:
    ramp = np.linspace(90, 140, 200).astype(np.uint8)
    plain = [Image.new("RGB", (200, 150), colour) for colour in ("black", "black", "white", (210, 160, 140))]
    shaded = [Image.fromarray(np.tile(ramp[:, None, None], (1, 200, 3))) for _ in range(2)]
    speck = Image.new("RGB", (200, 150), "black")
    speck.putpixel((20, 20), (255, 255, 255))
    assert rows_of(compare(*map(seen, [*plain, *shaded, speck, speck]))) == []


def brute_force(hashes: Hashes, thumbnails: UInt8Array) -> list[tuple[int, int, int]]:
    """Compare each with each, with nothing of the search but the verification of two rows."""
    found = []
    for i in range(len(hashes)):
        for j in range(i + 1, len(hashes)):
            for o in range(ORIENTATIONS):
                there = int(hashes[i, o] ^ hashes[j, 0]).bit_count()
                back = int(hashes[j, INVERSE[o]] ^ hashes[i, 0]).bit_count()
                if min(there, back) <= RADIUS and same(orient(thumbnails[i], o), thumbnails[j]):
                    found.append((i, j, o))
    return found


def same(a: UInt8Array, b: UInt8Array) -> bool:
    one = np.zeros((1, ORIENTATIONS), np.uint64)
    return bool(len(near_duplicates(np.repeat(one, 2, axis=0), np.stack([a, b])).first))


def combined(first: int, then: int) -> int:
    """Return the orientation that does what these two do, one after the other."""
    corners = np.arange(4).reshape(2, 2)
    wanted = orient(orient(corners, first), then)
    return next(o for o in range(ORIENTATIONS) if np.array_equal(orient(corners, o), wanted))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(0, 14))
def test_the_search_finds_what_comparing_each_with_each_finds(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    pictures, originals = noise(rng, 2), rng.integers(0, 2**64, (2, ORIENTATIONS), dtype=np.uint64)
    hashes, thumbnails = np.zeros((rows, ORIENTATIONS), np.uint64), np.zeros((rows, 32, 32), np.uint8)
    for row in range(rows):
        picture, orientation = rng.integers(2), int(rng.integers(ORIENTATIONS))
        thumbnails[row] = orient(pictures[picture], orientation)
        for o in range(ORIENTATIONS):
            # Two copies of one picture are 0 to 16 bits apart, and not equally far seen from the one and the other.
            original = originals[picture, combined(orientation, o)]
            hashes[row, o] = flip(rng, original, int(rng.integers(0, RADIUS + 1)))
    pairs = near_duplicates(hashes, thumbnails)
    found = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.orientation.tolist(), strict=True)
    assert list(found) == brute_force(hashes, thumbnails)


@pytest.mark.parametrize("distance", range(RADIUS + 4))
def test_hashes_are_compared_up_to_the_radius_wherever_their_bits_differ(distance: int) -> None:
    rng = np.random.default_rng(distance)
    picture = noise(rng, 1)[0]
    for _ in range(40):
        hashes = rng.integers(0, 2**64, (2, ORIENTATIONS), dtype=np.uint64)
        hashes[1, 0] = flip(rng, hashes[0, 0], distance)
        pairs = near_duplicates(hashes, np.stack([picture, picture]))
        assert rows_of(pairs) == ([(0, 1)] if distance <= RADIUS else [])


def test_the_order_of_the_rows_does_not_matter(drawings: list[Fingerprint]) -> None:
    copies = [seen(drawing(seed, diagnosis), 40) for seed in range(3) for diagnosis in CLASSES]
    mirrored = [seen(ImageOps.mirror(drawing(seed, diagnosis))) for seed in range(2) for diagnosis in CLASSES]
    pictures = [*drawings, *copies, *mirrored]
    pairs = compare(*pictures)
    assert len(pairs.first) == 6 + 3 * 12
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(pictures))
        shuffled = compare(*[pictures[i] for i in order])
        a, b = order[shuffled.first], order[shuffled.second]
        again = np.lexsort((np.maximum(a, b), np.minimum(a, b)))
        assert np.array_equal(np.minimum(a, b)[again], pairs.first)
        assert np.array_equal(np.maximum(a, b)[again], pairs.second)
        assert np.array_equal(shuffled.similarity[again], pairs.similarity)
        turn = np.where(a < b, shuffled.orientation, np.array(INVERSE)[shuffled.orientation])
        assert np.array_equal(turn[again], pairs.orientation)


def test_a_few_equal_rows_are_all_paired(drawings: list[Fingerprint]) -> None:
    assert rows_of(compare(*[drawings[0]] * 3)) == [(0, 1), (0, 2), (1, 2)]


def test_thousands_of_copies_stay_connected_without_millions_of_pairs(drawings: list[Fingerprint]) -> None:
    rng = np.random.default_rng(0)
    copies = 4000
    hashes = np.repeat(np.stack([drawings[0].hashes, drawings[1].hashes]), copies, axis=0)
    thumbnails = np.repeat(np.stack([drawings[0].thumbnail, drawings[1].thumbnail]), copies, axis=0)
    order = rng.permutation(2 * copies)
    pairs = near_duplicates(hashes[order], thumbnails[order])
    assert len(pairs.first) == 2 * (copies - 1)
    assert clusters(pairs, 2 * copies) == 2
    # As much noise as re-encoding makes, or more: 64 hashes of each picture.
    hashes[:, 0] ^= np.uint64(1) << rng.integers(0, 64, 2 * copies).astype(np.uint64)
    pairs = near_duplicates(hashes, thumbnails)
    assert len(pairs.first) < 2 * copies + 64**2
    assert clusters(pairs, 2 * copies) == 2


def test_in_a_large_set_of_one_hash_other_pictures_keep_their_own_copies(drawings: list[Fingerprint]) -> None:
    shown = [*range(LARGE_SET), 0, 1, 1]
    one = np.repeat(drawings[0].hashes[None], len(shown), axis=0)
    pairs = near_duplicates(one, np.stack([drawings[i].thumbnail for i in shown]))
    assert rows_of(pairs) == [(0, LARGE_SET), (1, LARGE_SET + 1), (1, LARGE_SET + 2)]


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_have_no_pairs(rows: int) -> None:
    pairs = near_duplicates(np.zeros((rows, 8), np.uint64), np.zeros((rows, 32, 32), np.uint8))
    assert rows_of(pairs) == []
    dtypes = [pairs.first.dtype, pairs.second.dtype, pairs.similarity.dtype, pairs.orientation.dtype]
    assert dtypes == [np.int64, np.int64, np.float32, np.int8]


def test_flat_thumbnails_are_taken_too_and_pairs_can_be_told_as_other_rows(drawings: list[Fingerprint]) -> None:
    hashes = np.stack([drawings[i].hashes for i in (0, 1, 0)])
    flat = np.stack([drawings[i].thumbnail.ravel() for i in (0, 1, 0)])
    pairs = near_duplicates(hashes, flat).at(np.array([3, 5, 8]))
    assert rows_of(pairs) == [(3, 8)]
    assert pairs.similarity.tolist() == pytest.approx([1])
