"""Augmented copies, told by their names: programs that write them say in the name which image they were made of."""

import re
from collections.abc import Sequence

from dermaray.data.formats import IMAGE_SUFFIXES

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

_AUGMENTOR = re.compile(rf".*?_original_(?P<parent>.+)_{_UUID}", re.IGNORECASE | re.DOTALL)
"""Augmentor's own: `melanoma_original_ISIC_0000139.jpg_3f0c....jpg`, written by `Pipeline.sample`."""

_WORDS = "aug rot flip hflip vflip mirror crop zoom shear skew shift blur noise bright contrast distort elastic"
_BY_HAND = re.compile(rf"[_-](?:{'|'.join(_WORDS.split())})[a-z]*", re.IGNORECASE)
"""What scripts append to a name: `ISIC_0000139_rot90.jpg`, `ISIC_0000139-aug-3.jpg`."""


def parents_of(stems: Sequence[str]) -> list[str | None]:
    """Return for each file name, without suffix, that of the image it belongs to as copy or as parent, or None.

    Augmentor's names are known by themselves; one that a script made counts only where the source has the parent too,
    for other programs use such words in names of their own.
    """
    present = set(stems)
    parents = [_parent(stem, present) for stem in stems]
    known = {parent for parent in parents if parent is not None}
    return [parent or (stem if stem in known else None) for stem, parent in zip(stems, parents, strict=True)]


def _parent(stem: str, present: set[str]) -> str | None:
    # Copies of copies lead to the first parent.
    if match := _AUGMENTOR.fullmatch(stem):
        parent = _without_suffix(match["parent"])
        return _parent(parent, present) or parent
    for match in _BY_HAND.finditer(stem):
        if (parent := stem[: match.start()]) in present:
            return parent
    return None


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name
