"""Probabilities as the ISIC challenges take them: a CSV with a column `image`, and one for each class."""

import csv
from typing import IO

import pyarrow as pa

from dermaray.labels import LabelSet

_ALWAYS = {"isic2019": {"UNK": 0.0}}
"""Columns of a challenge for what the label set has no class for, with what stands in them."""


def write_submission(file: IO[str], scored: pa.Table, label_set: LabelSet) -> None:
    """Write the probabilities of images, in the order of their names.

    Args:
        file: Open for writing, without translation of line ends.
        scored: Rows of `score_schema` that were scored.
        label_set: The classes.
    """
    always = _ALWAYS.get(label_set.name, {})
    table = scored.sort_by("image_id").select(["image_id", *label_set.classes])
    writer = csv.writer(file)
    writer.writerow(["image", *label_set.classes, *always])
    for row in zip(*table.to_pydict().values(), strict=True):
        writer.writerow([*row, *always.values()])
