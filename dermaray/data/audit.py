"""What is wrong with a data set: every finding looked for in every image, before anything is done about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dermaray.data.findings import Case, Findings
from dermaray.data.groups import Keys, crossings, group_ids, members_of
from dermaray.data.inspect import Inspected
from dermaray.data.pictures import Pictures
from dermaray.data.reference import contradicts
from dermaray.data.source import FORMAT_OF_SUFFIX, SourceImage
from dermaray.data.storage import name_of


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
        # The source and a reference may name one lesion differently.
        "reference lesion": [known.lesion_id if known else None for known in matched],
        "reference patient": [known.patient_id if known else None for known in matched],
        "duplicate cluster": pictures.clusters,
    }
    groups = group_ids([image.image_id for image in images], bonds)
    findings: Findings = {
        **_single_findings(images, inspected, classes, matched),
        "label_conflict": _conflicts(pictures.shown, classes),
        "augmented_copy": _copies(pictures),
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
    return f"{seen.format} in a {suffix} file" if FORMAT_OF_SUFFIX.get(suffix) != seen.format else None


def _conflicts(pictures: Sequence[str], classes: Sequence[str | None]) -> list[Case]:
    """Return the pictures, duplicates and augmented copies together, that have more than one class."""
    cases = []
    for positions in members_of(pictures).values():
        labels = {c for p in positions if (c := classes[p]) is not None}
        if len(labels) > 1:
            cases.append(Case(tuple(positions), " and ".join(sorted(labels))))
    return cases


def _copies(pictures: Pictures) -> list[Case]:
    found = [(parent, p) for parent, p in members_of(pictures.parents).items() if any(pictures.copies[i] for i in p)]
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
