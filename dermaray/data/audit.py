"""What is wrong with a data set: every finding looked for in every image, before anything is done about it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dermaray.data.copies import parents_of
from dermaray.data.duplicates import Pairs, near_duplicates
from dermaray.data.findings import Case, Findings
from dermaray.data.groups import Keys, components, crossings, group_ids, members_of
from dermaray.data.inspect import Inspected
from dermaray.data.reference import contradicts, stem_of
from dermaray.data.source import SourceImage
from dermaray.data.storage import name_of
from dermaray.images.fingerprint import FINGERPRINT_SPEC, ORIENTATIONS

_FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".gif": "GIF",
}


@dataclass(frozen=True)
class Pictures:
    """Which images show one picture, whatever their files are called.

    Attributes:
        files: SHA-256 of every image that can be decoded, else None: a saved error page is no picture.
        parents: For an augmented copy and its parent, label and name of the parent; the label tells like names apart.
        copies: Whether each image is an augmented copy.
        clusters: Name of the picture of every image that is there more than once, byte for byte or nearly; else None.
        near: Pairs of near duplicates, one image standing for all with its bytes.
        shown: Name of the picture of every image, copies and duplicates together.
    """

    files: list[str | None]
    parents: list[str | None]
    copies: list[bool]
    clusters: list[str | None]
    near: Pairs
    shown: list[str]


@dataclass(frozen=True)
class Detection:
    """What was found, and what belongs together.

    Attributes:
        findings: All kinds but `small_class`, which depends on the splits that are made.
        pictures: Which images show one picture.
        groups: Per image the group that no split may part: all that lesions, patients and pictures connect, images
            that cannot be used among them.
    """

    findings: Findings
    pictures: Pictures
    groups: list[str]


def find_pictures(images: Sequence[SourceImage], inspected: Sequence[Inspected]) -> Pictures:
    """Find which images show one picture."""
    image_ids, stems = [image.image_id for image in images], [stem_of(image) for image in images]
    files = [seen.sha256 if seen.format else None for seen in inspected]
    near = _near_pairs(inspected)
    clusters = _clusters(image_ids, files, near)
    found = parents_of([image.label for image in images], stems)
    parents = [parent and f"{image.label}/{parent}" for image, parent in zip(images, found, strict=True)]
    copies = [parent not in (None, stem) for parent, stem in zip(found, stems, strict=True)]
    shown = group_ids(image_ids, {"parent": parents, "cluster": clusters})
    return Pictures(files, parents, copies, clusters, near, shown)


def detect(
    images: Sequence[SourceImage],
    inspected: Sequence[Inspected],
    pictures: Pictures,
    classes: Sequence[str | None],
    matched: Sequence[SourceImage | None],
) -> Detection:
    """Look for every finding.

    Args:
        images: The source.
        inspected: What reading them told.
        pictures: Which of them show one picture.
        classes: The class that the label set files each image's label under, or None where it knows none.
        matched: What a reference tells of each image, or None.
    """
    bonds = {
        # Most telling first: what several of them hold together is told of under the first.
        "file": pictures.files,
        "parent": pictures.parents,
        "lesion": [image.lesion_id for image in images],
        "patient": [image.patient_id for image in images],
        "duplicate cluster": pictures.clusters,
    }
    groups = group_ids([image.image_id for image in images], bonds)
    findings: Findings = {
        **_single_findings(images, inspected, classes, matched),
        "label_conflict": _conflicts(pictures.shown, classes),
        "augmented_copy": _copies(pictures.parents),
        "exact_duplicate": _exact(pictures.files),
        "near_duplicate": _near(pictures),
        # A chain of bonds parts what no single one does: a lesion's other picture, copied to the other side.
        "split_leak": _split_leaks({**bonds, "group": groups}, images),
    }
    return Detection(findings, pictures, groups)


def _single_findings(
    images: Sequence[SourceImage],
    inspected: Sequence[Inspected],
    classes: Sequence[str | None],
    matched: Sequence[SourceImage | None],
) -> Findings:
    """Return the findings that each image has by itself."""

    def each(why: Callable[[int], str | None]) -> list[Case]:
        return [Case((i,), detail) for i in range(len(images)) if (detail := why(i))]

    def unknown_label(i: int) -> str | None:
        label = images[i].label
        return f"label {label!r}" if label is not None and classes[i] is None else None

    def contradiction(i: int) -> str | None:
        label, known = images[i].label, matched[i]
        return f"{label} here, {known.label} in the reference" if known and contradicts(label, known) else None

    return {
        "missing_image": each(lambda i: None if images[i].uri else "there is no such file"),
        "unlabelled": each(lambda i: None if images[i].label is not None else "the source gives no label"),
        "unknown_label": each(unknown_label),
        "unreadable": each(lambda i: inspected[i].problem if images[i].uri else None),
        "wrong_type": each(lambda i: _wrong_type(images[i], inspected[i])),
        "unlike_dermoscopy": each(lambda i: inspected[i].unlike),
        "reference_contradiction": each(contradiction),
    }


def _wrong_type(image: SourceImage, seen: Inspected) -> str | None:
    if not image.uri or not seen.format:
        return None
    suffix = name_of(image.uri).suffix.lower()
    return f"{seen.format} in a {suffix} file" if _FORMAT_OF_SUFFIX.get(suffix) != seen.format else None


def _near_pairs(inspected: Sequence[Inspected]) -> Pairs:
    """Return the pairs of near duplicates, one image standing for all with its bytes, as positions in the source."""
    first: dict[str, int] = {}
    for position, seen in enumerate(inspected):
        if seen.hashes is not None:
            first.setdefault(seen.sha256, position)
    where = np.array(list(first.values()), np.int64)
    hashes = np.array([inspected[p].hashes for p in where], np.uint64).reshape(-1, ORIENTATIONS)
    thumbnails = np.array([inspected[p].thumbnail for p in where], np.uint8).reshape(-1, *FINGERPRINT_SPEC.shape[:2])
    return near_duplicates(hashes, thumbnails).at(where)


def _clusters(image_ids: Sequence[str], files: Sequence[str | None], near: Pairs) -> list[str | None]:
    """Name the picture of every image that is there more than once, after the first image that shows it."""
    edges = [(positions[0], other) for positions in members_of(files).values() for other in positions[1:]]
    edges += zip(near.first.tolist(), near.second.tolist(), strict=True)
    component = components(len(image_ids), edges)
    size = Counter(component)
    name: dict[int, str] = {}
    for image_id, c in zip(image_ids, component, strict=True):
        name[c] = min(name.get(c, image_id), image_id)
    return [name[c] if size[c] > 1 else None for c in component]


def _conflicts(pictures: Sequence[str], classes: Sequence[str | None]) -> list[Case]:
    """Return the pictures, duplicates and augmented copies together, that have more than one class."""
    cases = []
    for positions in members_of(pictures).values():
        labels = {c for p in positions if (c := classes[p]) is not None}
        if len(labels) > 1:
            cases.append(Case(tuple(positions), " and ".join(sorted(labels))))
    return cases


def _copies(parents: Sequence[str | None]) -> list[Case]:
    found = members_of(parents).items()
    return [Case(tuple(positions), f"made from {parent}") for parent, positions in found]


def _exact(digests: Sequence[str | None]) -> list[Case]:
    found = members_of(digests).items()
    return [Case(tuple(positions), f"SHA-256 {sha256[:16]}") for sha256, positions in found if len(positions) > 1]


def _near(pictures: Pictures) -> list[Case]:
    similarity: dict[str | None, list[float]] = {}
    for first, value in zip(pictures.near.first.tolist(), pictures.near.similarity.tolist(), strict=True):
        similarity.setdefault(pictures.clusters[first], []).append(value)
    cases = []
    for cluster, positions in members_of(pictures.clusters).items():
        if cluster in similarity:
            different = len({pictures.files[p] for p in positions})
            detail = f"{different} versions of one picture, similarity {min(similarity[cluster]):.3f} or more"
            cases.append(Case(tuple(positions), detail))
    return cases


def _split_leaks(bonds: Keys, images: Sequence[SourceImage]) -> list[Case]:
    image_ids, official = [image.image_id for image in images], [image.official_split for image in images]
    return [Case(c.positions, c.describe(image_ids, official)) for c in crossings(bonds, official)]
