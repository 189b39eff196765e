"""The data-set table: one row per image, with its label, its group and its split, in one Parquet file.

Columns: `image_id`; `uri`, where its bytes are; `label`, a class of the label set; `group_id`, what no split may part
(a lesion, or the image itself); `split`, one of `SPLITS`; `age` in years, `sex`, `site`, each null where unknown;
`sha256` of the bytes; `width` and `height` in pixels. The file's metadata holds the label set and the table's origin.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dermaray.errors import DataError
from dermaray.labels import LabelSet

SPLITS = ("train", "val", "test")

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("age", pa.float32()),
        pa.field("sex", pa.string()),
        pa.field("site", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)

_METADATA_KEY = b"dermaray"
_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """The table and what is true of the whole of it.

    Attributes:
        table: Rows of `SCHEMA`.
        label_set: The classes that `label` names.
        facts: How the table was made (source, seed, ...), as JSON values.
    """

    table: pa.Table
    label_set: LabelSet
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over every image's bytes, label, group and split, in any order: which data this is."""
        rows = zip(
            *(self.table[c].to_pylist() for c in ("image_id", "sha256", "label", "group_id", "split")), strict=True
        )
        lines = sorted("\0".join(row) for row in rows)
        return hashlib.sha256("\n".join([*self.label_set.classes, *lines]).encode()).hexdigest()

    def rows(self, split: str) -> pa.Table:
        """Return the rows of one split, in the manifest's order.

        Raises:
            DataError: No image is in that split.
        """
        rows = self.table.filter(pc.equal(self.table["split"], split))
        if not rows.num_rows:
            sizes = Counter(self.table["split"].to_pylist())
            there = ", ".join(f"{name} ({sizes[name]})" for name in SPLITS if sizes[name])
            raise DataError(f"split {split!r} of the manifest holds no image. It has: {there}")
        return rows

    def label_indices(self, rows: pa.Table) -> list[int]:
        """Return the class index of every row."""
        index = {label: i for i, label in enumerate(self.label_set.classes)}
        return [index[label] for label in rows["label"].to_pylist()]

    def write(self, path: Path) -> None:
        """Write the table and its metadata as one Parquet file."""
        header = {"version": _VERSION, "label_set": self.label_set.to_dict(), "facts": self.facts}
        pq.write_table(self.table.replace_schema_metadata({_METADATA_KEY: json.dumps(header).encode()}), path)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read what `write` wrote; a folder that holds `manifest.parquet` will do.

        Raises:
            DataError: The file is missing, is no manifest, or contradicts itself.
        """
        if path.is_dir():
            path = path / "manifest.parquet"
        if not path.exists():
            raise DataError(f"{path} does not exist. Make a manifest with: dermaray prepare SOURCE --out DIR")
        try:
            table = pq.read_table(path)
            header = json.loads((table.schema.metadata or {})[_METADATA_KEY])
        except (pa.ArrowException, OSError, KeyError, ValueError):
            raise DataError(f"{path} is no manifest. Make one with: dermaray prepare SOURCE --out DIR") from None
        if header.get("version") != _VERSION:
            raise DataError(f"{path} has manifest version {header.get('version')}; this dermaray reads {_VERSION}")
        manifest = cls(table, LabelSet.from_dict(header["label_set"]), header["facts"])
        manifest._check(path)
        return manifest

    def _check(self, path: Path) -> None:
        missing = [name for name in SCHEMA.names if name not in self.table.schema.names]
        if missing:
            raise DataError(f"{path} lacks the column {missing[0]!r}. A manifest has: {', '.join(SCHEMA.names)}")
        for column, allowed in (("label", self.label_set.classes), ("split", SPLITS)):
            strange = sorted(set(self.table[column].to_pylist()) - set(allowed))
            if strange:
                raise DataError(f"{path}: {column} {strange[0]!r} is unknown. Known: {', '.join(allowed)}")
