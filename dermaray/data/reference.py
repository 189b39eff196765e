"""A ground truth beside the source's own labels: which of its rows tells of which image, and what follows."""

from collections.abc import Mapping, Sequence

from dermaray.data.copies import parents_of
from dermaray.data.source import SourceImage
from dermaray.data.storage import name_of
from dermaray.labels import LabelSet, agree


def stem_of(image: SourceImage) -> str:
    """Return the name that an image goes by outside its source: its file's, without folder and suffix."""
    return name_of(image.uri).stem if image.uri else image.image_id


def match_reference(images: Sequence[SourceImage], reference: Mapping[str, SourceImage]) -> list[SourceImage | None]:
    """Return for each image what a reference tells of it, or None.

    An augmented copy is looked up by its parent's name, and a name with and without the `_downsampled` that ISIC 2019
    adds to some.
    """
    stems = [stem_of(image) for image in images]
    parents = parents_of([image.label for image in images], stems)
    return [_find(parent or stem, reference) for stem, parent in zip(stems, parents, strict=True)]


def _find(name: str, reference: Mapping[str, SourceImage]) -> SourceImage | None:
    names = (name, name.removesuffix("_downsampled"), f"{name}_downsampled")
    return next((reference[n] for n in names if n in reference), None)


def contradiction(image: SourceImage, known: SourceImage | None) -> str | None:
    """Say how an image's label contradicts the reference; None where it does not, or where that cannot be told."""
    if image.label is None or known is None or known.label is None or agree(image.label, known.label) is not False:
        return None
    return f"{image.label} here, {known.label} in the reference"


def settled_class(known: SourceImage | None, label_set: LabelSet, candidates: Sequence[str]) -> str | None:
    """Return the class that a reference decides for, or None where it cannot.

    Where it leaves several (a reference of eight classes knows one benign keratosis, the set two), the one that is
    among `candidates`, the classes in dispute, is taken.
    """
    if known is None or known.label is None:
        return None
    fitting = [c for c in label_set.classes if agree(c, known.label)]
    if len(fitting) > 1:
        fitting = [c for c in fitting if c in candidates]
    return fitting[0] if len(fitting) == 1 else None
