"""Explanations of many images, as files for a person."""

import csv
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from dermaray.data.archive import Member, read_members
from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array
from dermaray.models.artifact import Artifact
from dermaray.models.engine import KerasEngine
from dermaray.models.explain import GradCam, overlay
from dermaray.models.predictor import Predictor

_BATCH = 16


class _Readable(NamedTuple):
    image_id: str
    uri: str
    pixels: UInt8Array


def write_explanations(
    out: Path, members: pa.Table, artifact: Artifact, explained: int | None, progress: Callable[[int], None]
) -> tuple[int, int]:
    """Explain images in this process.

    Args:
        out: An existing folder. It gets a PNG per image, the image as the model takes it and beside it the same under
            its map, and `explanations.csv`.
        members: The images, rows of `MEMBER_SCHEMA`.
        artifact: The model.
        explained: The class to explain, or None: the answer of each image.
        progress: Called with the number of images done since the last call.

    Returns:
        How many images were explained, and how many could not be read.
    """
    model = artifact.load_model()
    predictor, explain = Predictor(artifact, KerasEngine(model)), GradCam(model)
    classes, written, skipped = artifact.label_set.classes, 0, 0
    with (out / "explanations.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image_id", "uri", "file", "explained_class", "probability", "label", "problem"])
        for batch in _batches(read_members(members)):
            images = []
            for member in batch:
                try:
                    pixels = member.decode(predictor.artifact.input_spec).pixels
                    images.append(_Readable(member.image_id, member.uri, pixels))
                except ImageError as error:
                    table.writerow([member.image_id, member.uri, "", "", "", "", f"{error.reason}: {error}"])
                    skipped += 1
            if images:
                pixels = np.stack([image.pixels for image in images])
                decided = predictor.decide(pixels)
                target = decided.label if explained is None else np.full(len(images), explained)
                for image, heat, k, p, label in zip(
                    images, explain(pixels, target), target, decided.probabilities, decided.label, strict=True
                ):
                    name = f"{written:06d}-{_safe(image.image_id)}.png"
                    both = np.concatenate([image.pixels, overlay(image.pixels, heat)], axis=1)
                    Image.fromarray(both).save(out / name)
                    table.writerow([image.image_id, image.uri, name, classes[k], f"{p[k]:.6f}", classes[label], ""])
                    written += 1
            progress(len(batch))
    return written, skipped


def _batches(members: Iterator[Member]) -> Iterator[list[Member]]:
    while batch := list(islice(members, _BATCH)):
        yield batch


def _safe(name: str) -> str:
    """Return a name as a file may have it anywhere."""
    return re.sub(r"[^\w.-]", "_", name)[:80]
