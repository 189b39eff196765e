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

from dermaray.data.members import Member, read_members
from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array
from dermaray.models.artifact import Artifact
from dermaray.models.engine import KerasEngine
from dermaray.models.explain import GradCam, overlay
from dermaray.models.predictor import Predictor

_BATCH = 16


_COLUMNS = ("image_id", "uri", "file", "explained_class", "probability", "label", "problem")


class _Explained(NamedTuple):
    """One image: the picture that is written, and what the table says of it."""

    picture: UInt8Array
    explained_class: str
    probability: float
    label: str


def write_explanations(
    out: Path, members: pa.Table, artifact: Artifact, explained: int | None, progress: Callable[[int], None]
) -> tuple[int, int]:
    """Explain images in this process.

    Args:
        out: An existing folder. It gets a PNG per image, the image as the model takes it and beside it the same under
            its map, and `explanations.csv`, with a row for each, and the reason where an image cannot be read.
        members: The images, rows of `MEMBER_SCHEMA`.
        artifact: The model.
        explained: The class to explain, or None: the answer of each image.
        progress: Called with the number of images done since the last call.

    Returns:
        How many images were explained, and how many could not be read.

    Raises:
        StoreError: An object store cannot be reached.
    """
    model = artifact.load_model()
    predictor, explain = Predictor(artifact, KerasEngine(model)), GradCam(model)
    written = skipped = 0
    with (out / "explanations.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _COLUMNS, restval="")
        table.writeheader()
        for batch in _batches(read_members(members)):
            good: list[tuple[Member, UInt8Array]] = []
            for member in batch:
                try:
                    good.append((member, member.decode(artifact.input_spec).pixels))
                except ImageError as error:
                    problem = f"{error.reason}: {error}"
                    table.writerow({"image_id": member.image_id, "uri": member.uri, "problem": problem})
                    skipped += 1
            found = _explained(np.stack([pixels for _, pixels in good]), predictor, explain, explained) if good else []
            for (member, _), (picture, *told) in zip(good, found, strict=True):
                name = f"{written:06d}-{_safe(member.image_id)}.png"
                Image.fromarray(picture).save(out / name)
                row = (member.image_id, member.uri, name, *told)
                table.writerow(dict(zip(_COLUMNS, row, strict=False)))
                written += 1
            progress(len(batch))
    return written, skipped


def _explained(pixels: UInt8Array, predictor: Predictor, explain: GradCam, explained: int | None) -> list[_Explained]:
    decided, classes = predictor.decide(pixels), predictor.artifact.label_set.classes
    target = decided.label if explained is None else np.full(len(pixels), explained)
    heats = explain(pixels, target)
    return [
        _Explained(
            np.concatenate([pixels[i], overlay(pixels[i], heats[i])], axis=1),
            classes[target[i]],
            round(float(decided.probabilities[i, target[i]]), 6),
            classes[decided.label[i]],
        )
        for i in range(len(pixels))
    ]


def _batches(members: Iterator[Member]) -> Iterator[list[Member]]:
    while batch := list(islice(members, _BATCH)):
        yield batch


def _safe(name: str) -> str:
    """Return a name as a file may have it anywhere."""
    return re.sub(r"[^\w.-]", "_", name)[:80]
