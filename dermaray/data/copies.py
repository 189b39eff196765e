"""Augmented copies, told by their names: programs that write them say in the name which image they were made of."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from dermaray.data.source import IMAGE_SUFFIXES

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

_AUGMENTOR = re.compile(rf".*?_original_(?P<parent>.+)_{_UUID}", re.IGNORECASE | re.DOTALL)
"""Augmentor's own: `melanoma_original_ISIC_0000139.jpg_3f0c....jpg`, written by `Pipeline.sample`."""

_WORDS = (
    "aug(s|ment(s|ed|ing|ations?)?)?|rot(at(e|ed|ing|ions?))?|[hv]?flip(ped|ping|lr|ud|[hvxy])?|mirror(ed|ing)?"
    "|crop(ped|ping)?|zoom(ed|ing)?|shear(ed|ing)?|skew(ed|ing)?|shift(ed|ing)?|blur(red|ry|ring)?|nois(e|ed|y)"
    "|bright(er|ness|en(ed)?)?|contrast(ed)?|distort(ed|ions?)?|elastic|translat(e|ed|ions?)|affine|jitter(ed)?"
    "|warp(ed)?|perspective"
)
_KINDS = "random|horizontal(ly)?|vertical(ly)?|cent(er|re)|gaussian|colou?r"
_BY_HAND = re.compile(rf"[_-](({_KINDS})[_-]?)?(?P<word>{_WORDS})(?![^\W\d_])", re.IGNORECASE)
"""What scripts append to a name: `ISIC_0000139_rot90.jpg`, `ISIC_0000139-aug-3.jpg`; whole words, not `_rotterdam`."""

_BEFORE = re.compile(rf"(({_KINDS})[_-]?)?({_WORDS})(?=[\d_-])", re.IGNORECASE)
"""What others put before it: `aug_0_ISIC_0000139.jpg`, `rot15_ISIC_0000139.jpg`."""


def is_augmentors(stem: str) -> bool:
    """Tell whether a file's name without suffix is one that Augmentor gives to copies."""
    return _AUGMENTOR.fullmatch(stem) is not None


def parents_of(labels: Sequence[str | None], stems: Sequence[str]) -> list[str | None]:
    """Return the name of the image that each belongs to as copy or as parent, or None.

    Augmentor's names are known by themselves; one that a script made counts only where the source has the parent too,
    for other programs use such words in names of their own. Names mean something within one label: folders of
    different classes may each have a `1.jpg`. Whether it is a copy, `are_copies` tells.

    Args:
        labels: One per image.
        stems: Its file's name without folder and suffix.
    """
    files = list(zip(labels, stems, strict=True))
    present = set(files)
    parents = [_parent(label, stem, present) for label, stem in files]
    known = {(label, parent) for label, parent in zip(labels, parents, strict=True) if parent is not None}
    return [parent or (file[1] if file in known else None) for file, parent in zip(files, parents, strict=True)]


def are_copies(labels: Sequence[str | None], stems: Sequence[str], parents: Sequence[str | None]) -> list[bool]:
    """Tell which images are copies for sure: what programs write has a number after the word, or its like beside it.

    A bare word alone may be the photographer's: `case12_zoom.jpg` is another picture of the same lesion then.

    Args:
        labels: One per image.
        stems: Its file's name without folder and suffix.
        parents: What `parents_of` says of it.
    """
    of = list(zip(labels, parents, strict=True))
    made = [parent not in (None, stem) for stem, parent in zip(stems, parents, strict=True)]
    # Beside the parent's name, that is. Augmentor's UUID always has a digit.
    beside_it = (stem.replace(parent or "", "", 1) for stem, parent in zip(stems, parents, strict=True))
    numbered = [any(map(str.isdigit, rest)) for rest in beside_it]
    beside = Counter(parent for parent, is_made in zip(of, made, strict=True) if is_made)
    return [made[i] and (numbered[i] or beside[of[i]] > 1) for i in range(len(of))]


def _parent(label: str | None, stem: str, present: set[tuple[str | None, str]]) -> str | None:
    # Copies of copies lead to the first parent.
    if match := _AUGMENTOR.fullmatch(stem):
        parent = _without_suffix(match["parent"])
        return _parent(label, parent, present) or parent
    return next((parent for parent in _possible_parents(stem) if (label, parent) in present), None)


def _possible_parents(stem: str) -> Iterator[str]:
    """Yield what a name may be made of: what comes before the word for a copy, or after it and a number."""
    for match in _BY_HAND.finditer(stem):
        # The kind may be the parent's own: `lesion_color_rot90` is of `lesion_color`.
        yield stem[: match.start("word") - 1]
        yield stem[: match.start()]
    if before := _BEFORE.match(stem):
        rest = stem[before.end() :]
        for mark in re.finditer("[_-]", rest):
            if not rest[: mark.start()].strip("_-0123456789"):
                yield rest[mark.end() :]


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name
