"""Probabilities as the ISIC challenges take them: a CSV with a column `image`, and one for each class."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from dermaray.labels import LabelSet

_ALWAYS = {"isic2019": {"UNK": 0.0}}
"""Columns of a challenge for what the label set has no class for, with what stands in them."""


def write_submission(path: Path, scored: pa.Table, label_set: LabelSet) -> None:
    """Write the probabilities of images, in the order of their names.

    Args:
        path: The file.
        scored: Rows of `score_schema` that were scored.
        label_set: The classes.
    """
    ordered = scored.sort_by("image_id")
    table = ordered.select(["image_id", *label_set.classes]).rename_columns(["image", *label_set.classes])
    for name, value in _ALWAYS.get(label_set.name, {}).items():
        table = table.append_column(name, pa.array([value] * table.num_rows))
    pa_csv.write_csv(table, path, pa_csv.WriteOptions(quoting_style="none"))
