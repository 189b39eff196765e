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
from dermaray.data.reference import contradiction, stem_of
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
class Detection:
    """What was found, and what belongs together.

    Attributes:
        findings: All kinds but `small_class`, which depends on the splits that are made.
        bonds: What binds images: `file`, `parent`, `lesion`, `patient`, `duplicate cluster`; see `Keys`.
        groups: Per image the group that no split may part: all that the bonds connect, through images that cannot be
            used as well.
    """

    findings: Findings
    bonds: Keys
    groups: list[str]


def detect(
    images: Sequence[SourceImage],
    inspected: Sequence[Inspected],
    classes: Sequence[str | None],
    matched: Sequence[SourceImage | None],
) -> Detection:
    """Look for every finding.

    Args:
        images: The source.
        inspected: What reading them told.
        classes: The class that the label set files each image's label under, or None where it knows none.
        matched: What a reference tells of each image, or None.
    """
    pairs = _near_pairs(inspected)
    clusters = _clusters(images, inspected, pairs)
    parents = _parents(images)
    bonds = {
        # Most telling first: what several of them hold together is told of under the first.
        "file": [seen.sha256 if seen.format else None for seen in inspected],
        "parent": parents,
        "lesion": [image.lesion_id for image in images],
        "patient": [image.patient_id for image in images],
        "duplicate cluster": clusters,
    }
    image_ids = [image.image_id for image in images]
    groups = group_ids(image_ids, bonds)
    findings: Findings = {
        **_single_findings(images, inspected, classes, matched),
        "label_conflict": _conflicts(group_ids(image_ids, {"parent": parents, "cluster": clusters}), classes),
        "augmented_copy": _copies(parents),
        "exact_duplicate": _exact(bonds["file"]),
        "near_duplicate": _near(clusters, inspected, pairs),
        # A chain of bonds parts what no single one does: a lesion's other picture, copied to the other side.
        "split_leak": _split_leaks({**bonds, "group": groups}, images),
    }
    return Detection(findings, bonds, groups)


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

    return {
        "missing_image": each(lambda i: None if images[i].uri else "there is no such file"),
        "unlabelled": each(lambda i: None if images[i].label is not None else "the source gives no label"),
        "unknown_label": each(unknown_label),
        "unreadable": each(lambda i: inspected[i].problem if images[i].uri else None),
        "wrong_type": each(lambda i: _wrong_type(images[i], inspected[i])),
        "unlike_dermoscopy": each(lambda i: inspected[i].unlike),
        "reference_contradiction": each(lambda i: contradiction(images[i], matched[i])),
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


def _clusters(images: Sequence[SourceImage], inspected: Sequence[Inspected], pairs: Pairs) -> list[str | None]:
    """Name the picture of every image that is there more than once, after the first image that shows it."""
    same_bytes = members_of([seen.sha256 or None for seen in inspected]).values()
    edges = [(positions[0], other) for positions in same_bytes for other in positions[1:]]
    edges += zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    component = components(len(images), edges)
    size = Counter(component)
    name: dict[int, str] = {}
    for image, c in zip(images, component, strict=True):
        name[c] = min(name.get(c, image.image_id), image.image_id)
    return [name[c] if size[c] > 1 else None for c in component]


def _parents(images: Sequence[SourceImage]) -> list[str | None]:
    """Name the parent of every copy, and of the parent itself; the label before it tells like names apart."""
    found = parents_of([image.label for image in images], [stem_of(image) for image in images])
    return [parent and f"{image.label}/{parent}" for image, parent in zip(images, found, strict=True)]


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


def _near(clusters: Sequence[str | None], inspected: Sequence[Inspected], pairs: Pairs) -> list[Case]:
    similarity: dict[str | None, list[float]] = {}
    for first, value in zip(pairs.first.tolist(), pairs.similarity.tolist(), strict=True):
        similarity.setdefault(clusters[first], []).append(value)
    cases = []
    for cluster, positions in members_of(clusters).items():
        if cluster in similarity:
            different = len({inspected[p].sha256 for p in positions})
            detail = f"{different} versions of one picture, similarity {min(similarity[cluster]):.3f} or more"
            cases.append(Case(tuple(positions), detail))
    return cases


def _split_leaks(bonds: Keys, images: Sequence[SourceImage]) -> list[Case]:
    image_ids, official = [image.image_id for image in images], [image.official_split for image in images]
    return [Case(c.positions, c.describe(image_ids, official)) for c in crossings(bonds, official)]
