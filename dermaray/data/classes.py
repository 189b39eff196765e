"""Which classes a source is about."""

from collections import Counter
from collections.abc import Sequence

from dermaray.data.settings import PrepareConfig
from dermaray.data.source import SourceImage
from dermaray.errors import DataError, LabelError
from dermaray.labels import LabelSet, diagnosis_code, find_label_set

_NAMED = 5


def choose_label_set(images: Sequence[SourceImage], name: str | None) -> LabelSet:
    """Return the label set of that name, or the one that fits a source.

    Raises:
        DataError: No image has a label.
        LabelError: There is no set of that name.
    """
    labels = [image.label for image in images if image.label is not None]
    if not labels:
        raise DataError(f"none of the {len(images)} images has a label, so there is nothing to learn")
    return find_label_set([] if name else labels, name)


def merged_labels(images: Sequence[SourceImage], label_set: LabelSet) -> dict[str, list[str]]:
    """Return the classes that file several diagnoses which a source tells apart, each with their labels."""
    filed: dict[str, dict[str | None, str]] = {}
    for label in sorted({image.label for image in images if image.label is not None}):
        if name := label_set.find(label):
            filed.setdefault(name, {}).setdefault(diagnosis_code(label), label)
    return {name: list(labels.values()) for name, labels in filed.items() if len(labels) > 1}


def check_classes(images: Sequence[SourceImage], label_set: LabelSet, config: PrepareConfig) -> None:
    """Refuse a source that cannot be prepared, before its images are read.

    Raises:
        DataError: All images are of one class.
        LabelError: The label set knows one of the labels not, and the policy on that is `fail`.
    """
    labels = Counter(image.label for image in images if image.label is not None)
    if len({label_set.find(label) or label for label in labels}) == 1:
        named = " or ".join(map(repr, sorted(labels)[:_NAMED]))
        raise DataError(
            f"all {sum(labels.values()):,} images have the label {named}, so there is nothing to tell apart. "
            "The folder that holds the class folders, or the CSV, was expected"
        )
    unknown = [label for label in labels if label_set.find(label) is None]
    if unknown and config.policies.unknown_label == "fail":
        named = ", ".join(f"{label!r} ({labels[label]:,} images)" for label in unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise LabelError(
            f"{label_set.name} does not know the label{'s' if len(unknown) > 1 else ''} {named}{more}. "
            f"It knows: {', '.join(label_set.classes)}. "
            "policies.unknown_label=drop puts such images aside"
        )
