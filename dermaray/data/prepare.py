"""From a source to a manifest: every image read, the unusable put aside with its reason, the rest split.

The counts add up: every image of the source is in the manifest or in the quarantine.
"""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from dermaray.data.archive import files_listing, read_members
from dermaray.data.formats import SourceImage
from dermaray.data.manifest import SCHEMA, SPLITS, Manifest
from dermaray.data.split import assign_splits
from dermaray.data.streams import blocks_of
from dermaray.errors import DataError, ImageError
from dermaray.files import write_json
from dermaray.images.spec import InputSpec
from dermaray.labels import find_label_set

Progress = Callable[[int], None]


@dataclass(frozen=True)
class _Inspected:
    """What reading an image told: its digest and size, or why it cannot be used."""

    sha256: str
    width: int
    height: int
    reason: str
    message: str


def prepare(
    images: Sequence[SourceImage], source: Path, labels: str | None, seed: int, out: Path, progress: Progress
) -> dict[str, Any]:
    """Write `manifest.parquet`, `quarantine.csv` and `summary.json`.

    Args:
        images: What `read_source` found.
        source: Where it found it.
        labels: Name of a label set, or None to choose the one that fits.
        seed: Decides which groups go to which split.
        out: An existing folder.
        progress: Called with the number of images read since the last call.

    Returns:
        What `summary.json` holds: counts per class and split, and per reason of quarantine.

    Raises:
        DataError: No image can be used, or there are too few to split.
        LabelError: A label is unknown to the label set.
    """
    label_set = find_label_set((image.label for image in images), labels)
    class_of = {label: label_set.resolve(label) for label in {image.label for image in images}}
    inspected = _inspect(images, progress)
    reasons = _quarantine_reasons(images, inspected, class_of)
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    if not kept:
        raise DataError(f"none of the {len(images)} images of {source} can be used: {dict(Counter(reasons))}")
    rows = _rows([images[i] for i in kept], [inspected[i] for i in kept], class_of, seed)
    facts = {"source": str(source.resolve()), "seed": seed, "source_images": len(images)}
    manifest = Manifest(pa.Table.from_pylist(rows, SCHEMA), label_set, facts)
    manifest.write(out / "manifest.parquet")
    _write_quarantine(out / "quarantine.csv", images, inspected, reasons)
    summary = _summary(manifest, reasons)
    write_json(out / "summary.json", summary)
    return summary


def _inspect(images: Sequence[SourceImage], progress: Progress) -> list[_Inspected]:
    """Read and decode every image once, on all of the cluster's CPUs."""
    members = files_listing([str(image.path.resolve()) for image in images])
    members = members.append_column("position", pa.array(range(len(images)), pa.int64()))
    dataset = ray.data.from_arrow(blocks_of(members)).map_batches(
        _inspect_batch, batch_format="pyarrow", batch_size=None
    )
    result: list[_Inspected | None] = [None] * len(images)
    for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
        for row in batch.to_pylist():
            position = row.pop("position")
            result[position] = _Inspected(**row)
        progress(batch.num_rows)
    assert None not in result
    return result  # type: ignore[return-value]


def _inspect_batch(members: pa.Table) -> pa.Table:
    import hashlib

    spec = InputSpec(height=16, width=16, resize="stretch", scaled_decoding=False)
    rows = []
    for member in read_members(members):
        row = {"sha256": hashlib.sha256(member.data).hexdigest(), "width": 0, "height": 0, "reason": "", "message": ""}
        try:
            decoded = member.decode(spec)
            row |= {"width": decoded.width, "height": decoded.height}
        except ImageError as error:
            row |= {"reason": error.reason, "message": str(error)}
        rows.append(row)
    return pa.Table.from_pylist(rows).append_column("position", members["position"])


def _quarantine_reasons(
    images: Sequence[SourceImage], inspected: Sequence[_Inspected], class_of: dict[str, str]
) -> list[str | None]:
    """Return per image why it cannot be used, or None.

    Of byte-identical images one is kept, that of the test split before others; none is kept where they carry different
    labels, because nobody can tell which is right.
    """
    reasons: list[str | None] = [i.reason or None for i in inspected]
    same: dict[str, list[int]] = {}
    for position, (reason, seen) in enumerate(zip(reasons, inspected, strict=True)):
        if reason is None:
            same.setdefault(seen.sha256, []).append(position)
    for positions in same.values():
        conflict = len({class_of[images[p].label] for p in positions}) > 1
        keep = min(positions, key=lambda p: (images[p].official_split != "test", p))
        for p in positions:
            if conflict:
                reasons[p] = "label_conflict"
            elif p != keep:
                reasons[p] = "duplicate"
    return reasons


def _rows(
    images: Sequence[SourceImage], inspected: Sequence[_Inspected], class_of: dict[str, str], seed: int
) -> list[dict[str, Any]]:
    labels = [class_of[image.label] for image in images]
    groups = [image.lesion_id or image.image_id for image in images]
    splits = assign_splits(labels, groups, [image.official_split for image in images], seed=seed)
    return [
        {
            "image_id": image.image_id,
            "uri": str(image.path.resolve()),
            "label": label,
            "group_id": group,
            "split": split,
            "age": image.age,
            "sex": image.sex,
            "site": image.site,
            "sha256": seen.sha256,
            "width": seen.width,
            "height": seen.height,
        }
        for image, seen, label, group, split in zip(images, inspected, labels, groups, splits, strict=True)
    ]


def _write_quarantine(
    path: Path, images: Sequence[SourceImage], inspected: Sequence[_Inspected], reasons: Sequence[str | None]
) -> None:
    messages = {
        "duplicate": "the same bytes as another image that is kept",
        "label_conflict": "the same bytes as another image that has another label",
    }
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "uri", "label", "reason", "message", "sha256"])
        for image, seen, reason in zip(images, inspected, reasons, strict=True):
            if reason is not None:
                message = messages.get(reason, seen.message)
                writer.writerow([image.image_id, image.path, image.label, reason, message, seen.sha256])


def _summary(manifest: Manifest, reasons: Sequence[str | None]) -> dict[str, Any]:
    pairs = Counter(zip(manifest.table["label"].to_pylist(), manifest.table["split"].to_pylist(), strict=True))
    classes = {c: {s: pairs[c, s] for s in SPLITS} for c in manifest.label_set.classes}
    return {
        "source_images": len(reasons),
        "usable_images": manifest.table.num_rows,
        "quarantined": dict(sorted(Counter(reason for reason in reasons if reason is not None).items())),
        "groups": len(set(manifest.table["group_id"].to_pylist())),
        "label_set": manifest.label_set.name,
        "images_per_class": classes,
        "digest": manifest.digest,
    }
