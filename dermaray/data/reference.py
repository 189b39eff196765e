"""A ground truth beside the source's own labels: which of its rows tells of which image, and what follows."""

from collections.abc import Mapping, Sequence

from dermaray.data.source import SourceImage
from dermaray.data.tables import find_record
from dermaray.labels import LabelSet, agree


def match_reference(names: Sequence[str], reference: Mapping[str, SourceImage]) -> list[SourceImage | None]:
    """Return for each image what a reference tells of it, or None.

    Args:
        names: What each image goes by; see `Pictures.names`. It is looked up with and without the `_downsampled` that
            ISIC 2019 adds to some.
        reference: What `read_reference` found.
    """
    return [find_record(name, reference) for name in names]


def spread_reference(matched: Sequence[SourceImage | None], pictures: Sequence[str]) -> list[SourceImage | None]:
    """Let what a reference tells of an image hold for all images of its picture: a file may have been renamed.

    Args:
        matched: What the reference tells of each image by its name, or None.
        pictures: Per image the picture that it shows.

    Returns:
        The same, and for an image without a name that the reference knows what it tells of the others of its picture,
        unless it contradicts itself about them.
    """
    told: dict[str, list[SourceImage]] = {}
    for known, picture in zip(matched, pictures, strict=True):
        if known is not None:
            told.setdefault(picture, []).append(known)
    agreed = {picture: all_known[0] for picture, all_known in told.items() if len({k.label for k in all_known}) == 1}
    return [known or agreed.get(picture) for known, picture in zip(matched, pictures, strict=True)]


def contradicts(label: str | None, known: SourceImage | None) -> bool:
    """Tell whether a reference says surely that a label, or the class that files it, is wrong."""
    if label is None or known is None or known.label is None:
        return False
    return agree(label, known.label) is False


def settled_class(known: SourceImage | None, label_set: LabelSet, disputed: Sequence[str]) -> str | None:
    """Return the class that a reference decides for, or None where it cannot.

    Args:
        known: What the reference tells.
        label_set: The classes.
        disputed: Classes of which one is right. A reference that is coarser than the label set (ISIC 2019 knows one
            benign keratosis, `kaggle9` two) decides for the only one of them that it does not rule out.
    """
    if known is None or known.label is None:
        return None
    if (filed := label_set.find(known.label)) is not None:
        return filed
    fitting = {c for c in disputed if agree(c, known.label)}
    return fitting.pop() if len(fitting) == 1 else None
