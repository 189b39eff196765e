"""Which images of a source show one picture: byte for byte, nearly, or as augmented copies."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dermaray.data.copies import are_copies, parents_of
from dermaray.data.duplicates import Pairs, near_duplicates
from dermaray.data.groups import edges_of, group_ids, named_components
from dermaray.data.inspect import Inspected
from dermaray.data.source import SourceImage
from dermaray.data.storage import name_of
from dermaray.images.fingerprint import ORIENTATIONS, THUMBNAIL_SHAPE
from dermaray.labels import normalise


@dataclass(frozen=True)
class Pictures:
    """Which images show one picture, whatever their files are called.

    Attributes:
        names: What each image goes by outside its source: its file's name without folder and suffix; a copy's parent's.
        files: SHA-256 of every image that can be decoded, else None: a saved error page is no picture.
        parents: For what goes by its name as a copy, and its parent, label and name of the parent; the label tells like
            names apart.
        copies: Whether each image is an augmented copy for sure; what only may be one is another picture of the lesion.
        clusters: Name of the picture of every image that is there more than once, byte for byte or nearly; else None.
        near: Pairs of near duplicates, one image standing for all with its bytes.
        shown: Name of the picture of every image; copies, what may be one, and duplicates together.
    """

    names: list[str]
    files: list[str | None]
    parents: list[str | None]
    copies: list[bool]
    clusters: list[str | None]
    near: Pairs
    shown: list[str]


def find_pictures(images: Sequence[SourceImage], inspected: Sequence[Inspected]) -> Pictures:
    """Find which images show one picture."""
    image_ids = [image.image_id for image in images]
    stems = [name_of(image.uri).stem if image.uri else image.image_id for image in images]
    files = [seen.sha256 if seen.format else None for seen in inspected]
    near = _near_pairs(inspected)
    clusters = _clusters(image_ids, files, near)
    # As spelled in any of the splits' folders.
    labels = [image.label and normalise(image.label) for image in images]
    found = parents_of(labels, stems)
    copies = are_copies(labels, stems, found)
    parents = [parent and f"{label}/{parent}" for label, parent in zip(labels, found, strict=True)]
    shown = group_ids(image_ids, {"parent": parents, "cluster": clusters})
    names = [parent if parent and copy else stem for parent, copy, stem in zip(found, copies, stems, strict=True)]
    return Pictures(names, files, parents, copies, clusters, near, shown)


def _near_pairs(inspected: Sequence[Inspected]) -> Pairs:
    """Return the pairs of near duplicates, one image standing for all with its bytes, as positions in the source."""
    first: dict[str, int] = {}
    for position, seen in enumerate(inspected):
        if seen.hashes is not None:
            first.setdefault(seen.sha256, position)
    where = np.array(list(first.values()), np.int64)
    hashes = np.array([inspected[p].hashes for p in where], np.uint64).reshape(-1, ORIENTATIONS)
    thumbnails = np.array([inspected[p].thumbnail for p in where], np.uint8).reshape(-1, *THUMBNAIL_SHAPE)
    return near_duplicates(hashes, thumbnails).at(where)


def _clusters(image_ids: Sequence[str], files: Sequence[str | None], near: Pairs) -> list[str | None]:
    """Name the picture of every image that is there more than once, after the first image that shows it."""
    pairs = zip(near.first.tolist(), near.second.tolist(), strict=True)
    names = named_components(image_ids, itertools.chain(edges_of(files), pairs))
    size = Counter(names)
    return [name if size[name] > 1 else None for name in names]
