"""Near duplicates: pictures that were re-encoded, resized, re-coloured, turned by 90 degrees or mirrored.

Two steps. Perceptual hashes give candidates without comparing every picture with every other. They alone do not
decide, because dermoscopic images are alike (a dark blob on skin, dark corners); thumbnails do.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from dermaray.images.fingerprint import INVERSE, ORIENTATIONS, THUMBNAIL_SHAPE, orient
from dermaray.images.resize import UInt8Array

# Bits of 64. Of 1,000 dermoscopic images of 150x200 to 224x224 pixels, 30 copies each were made: JPEG of quality 30 to
# 90, 25 % to 200 % of the size, turned, mirrored, blurred, brighter, darker, re-coloured. All were within 8 bits, all
# but one within 6. Cut by 2 %, 99.9 % are within 8 bits; with a caption written over them, 96 %.
RADIUS = 8
# Of a similarity from -1 to 1. Of the 30,000 copies 29,997 have 0.75 or more. Of the 75 million pairs of 12,213 images
# (HAM10000 and the nine-class ISIC set) no two different pictures have more, and none within the radius 0.68.
THRESHOLD = 0.75
# Grey levels by which a thumbnail differs from its own blur, typically, for it to have details to compare. Its
# rounding alone makes about 0.25; the faintest of the 12,213 images has 0.66.
MIN_DETAIL = 0.4
# So many pictures of one hash are compared pair by pair; of more, a few stand for all.
LARGE_SET = 32

_BANDS, _BITS = 4, 16
# The sum of 32 x 32 products of two of these is below 2 ** 24, so that it is exact in float32 in whatever order.
_FULL = 127
_HITS_AT_ONCE = 1_000_000
_PAIRS_AT_ONCE = 4096
_THUMBNAILS_AT_ONCE = 4096

_Ints = npt.NDArray[np.int64]
_Hashes = npt.NDArray[np.uint64]
_Found = tuple[_Ints, _Ints, npt.NDArray[np.float32], npt.NDArray[np.int8]]


@dataclass(frozen=True)
class Pairs:
    """Near duplicates, sorted by `first` and `second`; each pair once.

    Attributes:
        first: int64 [M]. A row of what was compared.
        second: int64 [M]. A row that shows the same picture; larger than `first`.
        similarity: float32 [M], `THRESHOLD` to 1. How well the details of the two thumbnails agree.
        orientation: int8 [M], 0 to 7. The orientation of the first (see `dermaray.images.fingerprint.orient`) in which
            it looks like the second.
    """

    first: _Ints
    second: _Ints
    similarity: npt.NDArray[np.float32]
    orientation: npt.NDArray[np.int8]

    @classmethod
    def empty(cls) -> "Pairs":
        """Return no pairs."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int8))

    def at(self, rows: _Ints) -> "Pairs":
        """Return the same pairs, where row i of what was compared is `rows[i]`: int64 [N], ascending."""
        return Pairs(rows[self.first], rows[self.second], self.similarity, self.orientation)


def near_duplicates(hashes: _Hashes, thumbnails: UInt8Array) -> Pairs:
    """Find the rows that show one picture.

    A pair is reported when in some orientation their hashes differ in `RADIUS` bits or fewer, from either side, and
    the details of their thumbnails have a similarity of `THRESHOLD` or more. Which rows are paired does not depend on
    their order, with one exception: of more than `LARGE_SET` rows with one upright hash, a row is paired with the first
    that shows its picture, and only that one is compared with all other rows. So thousands of copies make thousands of
    pairs, not millions.

    Not found, because their whole frame is not the same: a picture with a border added, or cut by 5 % or more.

    A picture without details (blank, black, a plain gradient) is a near duplicate of nothing.

    Takes some 15 seconds of one CPU for 100,000 rows, and 220 MB besides them.

    Args:
        hashes: uint64 [N, 8], of `Fingerprint.hashes`.
        thumbnails: uint8 [N, 32, 32] or [N, 1024], of `Fingerprint.thumbnail`.
    """
    details = _Details(thumbnails)
    heads, found = _stand_ins(hashes[:, 0], details)
    for query, hit, orientation in _candidates(_mix(hashes[heads])):
        found += details.confirm(heads[query], heads[hit], orientation)
    return _best(found)


class _Details:
    """The details of every thumbnail, and their comparison.

    A pixel's detail is its difference from the blurred thumbnail (deviation 1 pixel), squeezed by a hyperbolic tangent
    at 2 grey levels. The blur takes away brightness, colour cast and shading; squeezed, a faint hair counts nearly as
    much as the edge of the lesion, which many lesions share. The similarity is the cosine of two pictures' details, or
    that of their middles where it is smaller: a border, mask or caption that many pictures share can be most of what a
    thumbnail shows, but not of its middle.
    """

    def __init__(self, thumbnails: UInt8Array) -> None:
        shape = (len(thumbnails), *THUMBNAIL_SHAPE)
        thumbnails = thumbnails.reshape(shape)
        self.values = np.empty(shape, np.int8)
        self.lengths = np.empty((len(thumbnails), 2))
        for start in range(0, len(thumbnails), _THUMBNAILS_AT_ONCE):
            part = slice(start, start + _THUMBNAILS_AT_ONCE)
            grey = thumbnails[part].astype(np.float32)
            values = np.rint(_FULL * np.tanh((grey - gaussian_filter(grey, (0, 1, 1))) / 2))
            self.values[part] = values
            self.lengths[part] = np.sqrt(_totals(values**2))
        least = _FULL * np.tanh(MIN_DETAIL / 2) * np.sqrt(_totals(np.ones((1, *shape[1:]))))
        (self.visible,) = np.nonzero((self.lengths >= least).all(axis=1))

    def confirm(self, query: _Ints, hit: _Ints, orientation: int) -> Iterator[_Found]:
        """Give those pairs that show one picture when each query, int64 [n], is turned to `orientation`."""
        for start in range(0, len(query), _PAIRS_AT_ONCE):
            a, b = query[start : start + _PAIRS_AT_ONCE], hit[start : start + _PAIRS_AT_ONCE]
            products = orient(self.values[a], orientation).astype(np.float32) * self.values[b]
            similarity = (_totals(products) / (self.lengths[a] * self.lengths[b])).min(axis=1).astype(np.float32)
            same = similarity >= THRESHOLD
            a, b = a[same], b[same]
            turn = np.where(a < b, orientation, INVERSE[orientation]).astype(np.int8)
            yield np.minimum(a, b), np.maximum(a, b), similarity[same], turn


def _totals(pictures: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sum pictures, [n, side, side], as a whole and over the middle quarter of their area: [n, 2]."""
    margin = pictures.shape[1] // 4
    middle = pictures[:, margin:-margin, margin:-margin]
    return np.stack([pictures.sum(axis=(1, 2)), middle.sum(axis=(1, 2))], axis=1)


def _stand_ins(upright: _Hashes, details: _Details) -> tuple[_Ints, list[_Found]]:
    """Pair the rows of each large set of equal hashes, uint64 [N], with few of them.

    Returns:
        The rows that are left to compare, int64 [n], ascending, and the pairs.
    """
    _, sets, counts = np.unique(upright[details.visible], return_inverse=True, return_counts=True)
    by_set = details.visible[np.argsort(sets, kind="stable")]
    heads: list[_Ints] = [by_set[np.repeat(counts <= LARGE_SET, counts)]]
    found: list[_Found] = []
    ends = np.cumsum(counts)
    for index in np.nonzero(counts > LARGE_SET)[0]:
        members = by_set[ends[index] - counts[index] : ends[index]]
        while len(members):
            head, members = members[:1], members[1:]
            heads.append(head)
            new = list(details.confirm(np.repeat(head, len(members)), members, 0))
            found += new
            members = np.setdiff1d(members, np.concatenate([members[:0], *(pairs[1] for pairs in new)]))
    return np.sort(np.concatenate(heads)), found


def _mix(hashes: _Hashes) -> _Hashes:
    """Reorder the bits of hashes, uint64 [N, 8], so that each band of 16 holds frequencies of all kinds.

    The lowest frequencies are nearly the same for all dermoscopic images. Spread over the bands they leave each about
    16,000 keys that matter; a band of whole rows of the transform has 3,000.
    """
    row, column = np.divmod(np.arange(_BANDS * _BITS), 8)
    order = np.argsort((row + column // 2) % _BANDS, kind="stable")
    bits = np.unpackbits(hashes.astype(">u8")[..., None].view(np.uint8), axis=-1)
    mixed = np.ascontiguousarray(np.packbits(bits[..., order], axis=-1))
    return mixed.view(">u8")[..., 0].astype(np.uint64)


def _candidates(hashes: _Hashes) -> Iterator[tuple[_Ints, _Ints, int]]:
    """Give the pairs within `RADIUS`, each and in each orientation once: queries, hits, the queries' orientation.

    Multi-index hashing (Norouzi, Punjani and Fleet, Fast Exact Search in Hamming Space with Multi-Index Hashing,
    2014). Two hashes that differ in `RADIUS` bits or fewer differ, in one of the four bands at least, in no more bits
    than the band's reach: the reaches plus one add up to more than `RADIUS`. So for each band every hash looks up the
    keys within reach of its own among the keys of the upright pictures, and misses nothing.
    """
    for band in range(_BANDS):
        keys = _band(hashes, band)
        by_key = np.argsort(keys[:, 0], kind="stable")
        starts = np.searchsorted(keys[by_key, 0], np.arange(2**_BITS + 1))
        for orientation in range(ORIENTATIONS):
            for flip in _flips(_reach(band)):
                for query, place in _matches(keys[:, orientation] ^ flip, starts):
                    query, hit = _first_met(hashes, query, by_key[place], orientation, band)
                    yield query, hit, orientation


def _reach(band: int) -> int:
    """Return in how many bits a band's keys may differ: 2, 1, 1 and 1 for a radius of 8."""
    return (RADIUS - band) // _BANDS


def _flips(reach: int) -> list[int]:
    """Return every key, 0 to 65,535, with `reach` bits set or fewer."""
    return [sum(1 << bit for bit in bits) for n in range(reach + 1) for bits in itertools.combinations(range(_BITS), n)]


def _band(hashes: _Hashes, band: int) -> _Ints:
    return ((hashes >> np.uint64(band * _BITS)) & np.uint64(2**_BITS - 1)).astype(np.int64)


def _matches(keys: _Ints, starts: _Ints) -> Iterator[tuple[_Ints, _Ints]]:
    """Join keys, int64 [N], with a sorted index whose entries of key k are at `starts[k]` to `starts[k + 1]`.

    Yields:
        Positions in `keys` and in the index, int64 [n], where n is about `_HITS_AT_ONCE` or less.
    """
    counts = starts[keys + 1] - starts[keys]
    ends = np.cumsum(counts)
    begins = ends - counts
    cuts = np.searchsorted(ends, np.arange(0, counts.sum(), _HITS_AT_ONCE), side="right").tolist()
    # One query may have more matches than fit: the cuts that fall into it make empty steps.
    for low, high in itertools.pairwise([*cuts, len(keys)]):
        query = np.repeat(np.arange(low, high), counts[low:high])
        yield query, starts[keys[query]] + np.arange(len(query)) + begins[low:high][:1] - begins[query]


def _first_met(hashes: _Hashes, query: _Ints, hit: _Ints, orientation: int, band: int) -> tuple[_Ints, _Ints]:
    """Keep the pairs within `RADIUS` that no earlier band has met, and that are not met from the other side too."""
    difference = hashes[query, orientation] ^ hashes[hit, 0]
    keep = (np.bitwise_count(difference) <= RADIUS) & (query != hit)
    query, hit, difference = query[keep], hit[keep], difference[keep]
    fresh = np.ones(len(query), dtype=bool)
    for earlier in range(band):
        fresh &= np.bitwise_count(_band(difference, earlier)) > _reach(earlier)
    back = hashes[hit, INVERSE[orientation]] ^ hashes[query, 0]
    fresh &= (query < hit) | (np.bitwise_count(back) > RADIUS)
    return query[fresh], hit[fresh]


def _best(found: list[_Found]) -> Pairs:
    """Keep of each pair the orientation in which it is most alike, the lowest of equal ones."""
    if not found:
        return Pairs.empty()
    first, second, similarity, orientation = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((orientation, -similarity, second, first))
    first, second = first[order], second[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return Pairs(first[new], second[new], similarity[order][new], orientation[order][new])
