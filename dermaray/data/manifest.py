"""The data-set table: one row per image, with its label, its group and its split, in one Parquet file.

| column | meaning |
| --- | --- |
| `image_id` | unique in the table |
| `uri` | where its bytes are: a path, or the URI of an object store |
| `label` | a class of the label set |
| `group_id` | what no split may part: all that lesion, patient, duplicates or a parent image connect |
| `split` | one of `SPLITS` |
| `fold` | 0 to k - 1 where the data set was split into k folds, else null; null for test images |
| `lesion_id`, `patient_id` | as the source or the reference names them, or null |
| `duplicate_cluster` | images that show one picture have one name here; null where there is no other |
| `parent_id` | where there are copies, by their names: label and name of the image that they were made of; else null |
| `age`, `sex`, `site` | in years; as the source spells them; null where unknown |
| `sha256` | of the bytes, 64 hexadecimal digits |
| `width`, `height` | pixels, upright |

The file's metadata holds the label set and the table's origin.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dermaray.data.source import SourceImage
from dermaray.data.storage import local_path
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
        pa.field("fold", pa.int32()),
        pa.field("lesion_id", pa.string()),
        pa.field("patient_id", pa.string()),
        pa.field("duplicate_cluster", pa.string()),
        pa.field("parent_id", pa.string()),
        pa.field("age", pa.float32()),
        pa.field("sex", pa.string()),
        pa.field("site", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)

_METADATA_KEY = b"dermaray"
_VERSION = 2


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
        columns = ("image_id", "sha256", "label", "group_id", "split")
        rows = zip(*(self.table[column].to_pylist() for column in columns), strict=True)
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
            folds = "; and folds, of which one becomes val: --fold I" if self.folds and "fold" not in self.facts else ""
            raise DataError(f"split {split!r} of the manifest holds no image. It has: {there}{folds}")
        return rows

    @property
    def source_name(self) -> str:
        """What it was prepared from: a URI, or the last part of a local path, since the rest tells of a machine."""
        source = str(self.facts.get("source", "unknown"))
        path = local_path(source)
        return source if path is None else path.name

    def description(self) -> dict[str, Any]:
        """Return what a model keeps of the data that it was made of, as JSON values."""
        facts = {**self.facts, "source": self.source_name}
        return {"digest": self.digest, "images": self.table.num_rows, **facts}

    @property
    def folds(self) -> list[int]:
        """The folds that the data set was split into; empty where there is a val split instead."""
        return sorted(set(self.table["fold"].to_pylist()) - {None})

    def for_fold(self, fold: int | None) -> "Manifest":
        """Return `fold(fold)`, or the manifest itself where neither a fold is asked for nor there are any.

        Raises:
            DataError: See `fold`; or the data set has folds and none is named.
        """
        if fold is None and self.folds:
            raise DataError(f"data.fold must name the fold to validate on, 0 to {self.folds[-1]}. Received: null")
        return self if fold is None else self.fold(fold)

    def fold(self, fold: int) -> "Manifest":
        """Return the manifest with one fold as `val` and the others as `train`; `test` stays.

        Raises:
            DataError: The data set was not split into folds, or has no such fold.
        """
        known = self.folds
        if not known:
            raise DataError("the manifest has no folds. Make some with: dermaray prepare SOURCE splits.folds=5")
        if fold not in known:
            raise DataError(f"the manifest has the folds {known[0]} to {known[-1]}. Received: {fold}")
        folds = self.table["fold"].to_pylist()
        splits = self.table["split"].to_pylist()
        chosen = [s if f is None else "val" if f == fold else "train" for s, f in zip(splits, folds, strict=True)]
        return self.with_splits(chosen, fold)

    def with_splits(self, splits: Sequence[str], fold: int) -> "Manifest":
        """Return the manifest with other splits, one per row, as a fold of it."""
        position = self.table.schema.get_field_index("split")
        table = self.table.set_column(position, SCHEMA.field("split"), pa.array(splits, pa.string()))
        return Manifest(table, self.label_set, {"unfolded_digest": self.digest, **self.facts, "fold": fold})

    def source_images(self) -> list[SourceImage]:
        """Return the rows as the images of a source that is split already, to be audited again."""
        columns = ("image_id", "uri", "label", "lesion_id", "patient_id", "split", "age", "sex", "site")
        return [SourceImage(*row) for row in zip(*(self.table[c].to_pylist() for c in columns), strict=True)]

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
            version = header.get("version")
            raise DataError(f"{path} has manifest version {version}; this dermaray reads {_VERSION}. Prepare it again")
        manifest = cls(table, LabelSet.from_dict(header["label_set"]), header["facts"])
        manifest._check(path)
        return manifest

    def _check(self, path: Path) -> None:
        missing = [name for name in SCHEMA.names if name not in self.table.schema.names]
        if missing:
            raise DataError(f"{path} lacks the column {missing[0]!r}. A manifest has: {', '.join(SCHEMA.names)}")
        if empty := [field.name for field in SCHEMA if not field.nullable and self.table[field.name].null_count]:
            raise DataError(f"{path}: {empty[0]} is missing for {self.table[empty[0]].null_count} images")
        twice = [name for name, times in Counter(self.table["image_id"].to_pylist()).items() if times > 1]
        if twice:
            raise DataError(f"{path}: image_id {twice[0]!r} is there more than once")
        for column, allowed in (("label", self.label_set.classes), ("split", SPLITS)):
            strange = sorted(set(self.table[column].to_pylist()) - set(allowed))
            if strange:
                raise DataError(f"{path}: {column} {strange[0]!r} is unknown. Known: {', '.join(allowed)}")


def count_ungrouped(images: pa.Table) -> int:
    """Return of how many images of a manifest neither lesion nor patient is named; each counts as a lesion."""
    unnamed = pc.and_(pc.is_null(images["lesion_id"]), pc.is_null(images["patient_id"]))
    return int(pc.sum(unnamed).as_py() or 0)


def check_unchanged(uris: Any, sha256s: Any, images: pa.Table) -> None:
    """Refuse other pictures in the place of those that were audited: splits and labels speak of the first.

    Args:
        uris: Where images were read, strings [N].
        sha256s: Of their bytes; empty or null where they could not be read.
        images: Rows of a manifest, these images among them.

    Raises:
        DataError: An image is another.
    """
    read = pa.table({"uri": uris, "sha256": sha256s}).filter(pc.field("sha256") != "")
    prepared = images["sha256"].take(pc.index_in(read["uri"], value_set=images["uri"].combine_chunks()))
    changed = read["uri"].filter(pc.not_equal(prepared, read["sha256"]))
    if len(changed):
        raise DataError(
            f"{changed[0]} was usable when it was prepared, now it holds other bytes; so do {len(changed) - 1} more. "
            "Prepare the data again"
        )


def is_manifest_file(path: Path, *, damaged: bool = False) -> bool:
    """Tell whether a Parquet file is a manifest, by what it says of itself.

    Args:
        path: The file; it may be missing.
        damaged: What to take a file for that cannot be read.
    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return _METADATA_KEY in (pq.read_schema(file).metadata or {})
    except (pa.ArrowException, OSError):
        return damaged


def is_manifest(path: str) -> bool:
    """Tell whether a path is that of a manifest, or of the folder of one, rather than of a source."""
    return path.endswith(".parquet") or (Path(path) / "manifest.parquet").exists()
