"""A source and all that is known of it: read once, audited, compared with a reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dermaray.data.audit import Detection, detect
from dermaray.data.inspect import Inspected, Progress, inspect_images
from dermaray.data.pictures import find_pictures
from dermaray.data.reference import match_reference, spread_reference
from dermaray.data.source import SourceImage
from dermaray.data.tables import fill_in
from dermaray.labels import LabelSet


@dataclass(frozen=True)
class Examined:
    """A source and what is known of each of its images.

    Attributes:
        images: The images, with what the reference adds where the source is silent.
        inspected: What reading them told.
        classes: The class that the label set files each image's label under, or None where it knows none.
        matched: What the reference tells of each, or None.
        label_set: The classes.
        detection: What is wrong with them.
    """

    images: Sequence[SourceImage]
    inspected: Sequence[Inspected]
    classes: Sequence[str | None]
    matched: Sequence[SourceImage | None]
    label_set: LabelSet
    detection: Detection


def examine(
    images: Sequence[SourceImage], label_set: LabelSet, reference: Mapping[str, SourceImage], progress: Progress
) -> Examined:
    """Read every image on the connected Ray cluster and look for every finding.

    Args:
        images: What `read_source` found.
        label_set: The classes.
        reference: What `read_reference` found; empty for none.
        progress: Called with the number of images read since the last call.
    """
    inspected = inspect_images([image.uri for image in images], progress)
    return assess(images, inspected, label_set, reference)


def assess(
    images: Sequence[SourceImage],
    inspected: Sequence[Inspected],
    label_set: LabelSet,
    reference: Mapping[str, SourceImage],
) -> Examined:
    """Look for every finding in images that were read.

    Args:
        images: What `read_source` found.
        inspected: What reading them told.
        label_set: The classes.
        reference: What `read_reference` found; empty for none.
    """
    pictures = find_pictures(images, inspected)
    matched = spread_reference(match_reference(pictures.names, reference), pictures.shown)
    told = [fill_in(image, known) for image, known in zip(images, matched, strict=True)]
    filed = {label: label_set.find(label) for label in {image.label for image in told} if label is not None}
    classes = [None if image.label is None else filed[image.label] for image in told]
    detection = detect(told, inspected, pictures, classes, matched)
    return Examined(told, inspected, classes, matched, label_set, detection)
