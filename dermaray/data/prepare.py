"""From a source to a manifest: every image read and audited, policies applied, the rest split.

The counts add up: every image of the source is in the manifest or in the quarantine.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermaray.data.audit_report import describe_audit, write_audit
from dermaray.data.examine import Examined, examine
from dermaray.data.findings import KINDS
from dermaray.data.gate import find_leaks
from dermaray.data.inspect import Progress
from dermaray.data.manifest import SCHEMA, SPLITS, Manifest
from dermaray.data.policy import Fates, apply_policies
from dermaray.data.settings import PrepareConfig
from dermaray.data.source import SourceImage
from dermaray.data.split import Assignment, assign_splits, split_digest
from dermaray.errors import DataError
from dermaray.files import write_json
from dermaray.labels import LabelSet


def prepare(
    images: Sequence[SourceImage],
    label_set: LabelSet,
    reference: Mapping[str, SourceImage],
    source: str,
    config: PrepareConfig,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Write `manifest.parquet`, `quarantine.csv`, `summary.json`, `audit.json` and `audit.html`.

    Args:
        images: What `read_source` found.
        label_set: The classes.
        reference: What `read_reference` found; empty for none.
        source: Where the images are, for the record.
        config: Policies and splits.
        out: An existing folder.
        progress: Called with the number of images read since the last call.

    Returns:
        What `summary.json` holds: counts per class and split, and per finding that put images aside.

    Raises:
        DataError: No image can be used, there are too few to split, or something was found whose policy is `fail`.
    """
    if config.splits.folds is not None:
        # Folds take the place of a val split, so nothing can leak between it and train.
        images = [
            replace(image, official_split="train") if image.official_split == "val" else image for image in images
        ]
    examined = examine(images, label_set, reference, progress)
    fates = apply_policies(examined, config.policies)
    kept = fates.usable()
    if not kept:
        raise DataError(f"none of the {len(images)} images of {source} can be used: {_aside(fates)}")
    manifest = _manifest(examined, fates, kept, source, config)
    split_of = dict(zip(kept, manifest.table["split"].to_pylist(), strict=True))
    splits = [split_of.get(p) for p in range(len(images))]
    audit = describe_audit(source, examined, splits, find_leaks(manifest), config, fates)
    _refuse_small_classes(audit, config)
    manifest.write(out / "manifest.parquet")
    _write_quarantine(out / "quarantine.csv", examined, fates)
    summary = {**_summary(manifest, fates), "reference_images": audit["reference_images"]}
    write_json(out / "summary.json", summary)
    write_audit(out, audit)
    return summary


def _manifest(source: Examined, fates: Fates, kept: Sequence[int], where: str, config: PrepareConfig) -> Manifest:
    labels = [str(fates.classes[p]) for p in kept]
    groups = [source.detection.groups[p] for p in kept]
    assigned = assign_splits(labels, groups, [source.images[p].official_split for p in kept], config.splits)
    table = pa.Table.from_pylist(_rows(source, kept, labels, assigned), SCHEMA)
    facts = {
        "source": where,
        "source_images": len(source.images),
        "prepared_with": config.model_dump(mode="json"),
        "split_digest": split_digest(table["image_id"].to_pylist(), assigned.splits, assigned.folds),
    }
    return Manifest(table, source.label_set, facts)


def _rows(source: Examined, kept: Sequence[int], labels: Sequence[str], assigned: Assignment) -> list[dict[str, Any]]:
    pictures = source.detection.pictures
    rows = []
    for p, label, split, fold in zip(kept, labels, assigned.splits, assigned.folds, strict=True):
        image, seen = source.images[p], source.inspected[p]
        rows.append(
            {
                "image_id": image.image_id,
                "uri": image.uri,
                "label": label,
                "group_id": source.detection.groups[p],
                "split": split,
                "fold": fold,
                "lesion_id": image.lesion_id,
                "patient_id": image.patient_id,
                "duplicate_cluster": pictures.clusters[p],
                "parent_id": pictures.parents[p],
                "age": image.age,
                "sex": image.sex,
                "site": image.site,
                "sha256": seen.sha256,
                "width": seen.width,
                "height": seen.height,
            }
        )
    return rows


def _refuse_small_classes(audit: dict[str, Any], config: PrepareConfig) -> None:
    # The one finding that nobody can tell before the images are split.
    if config.policies.small_class == "fail":
        cases = next(f["cases"] for f in audit["findings"] if f["finding"] == "small_class")
        if cases:
            told = "; ".join(case["detail"] for case in cases)
            raise DataError(
                f"{KINDS['small_class'].title.lower()}: {told}. That is refused by policies.small_class=fail"
            )


def _write_quarantine(path: Path, source: Examined, fates: Fates) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "uri", "label", "finding", "message", "sha256"])
        for p, (finding, message) in enumerate(zip(fates.finding, fates.message, strict=True)):
            if finding is not None:
                image, seen = source.images[p], source.inspected[p]
                writer.writerow([image.image_id, image.uri, image.label, finding, message, seen.sha256])


def _aside(fates: Fates) -> dict[str, int]:
    """Count the images that were put aside, by finding."""
    counts = Counter(fates.finding)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def _summary(manifest: Manifest, fates: Fates) -> dict[str, Any]:
    pairs = Counter(zip(manifest.table["label"].to_pylist(), manifest.table["split"].to_pylist(), strict=True))
    relabelled = Counter(fates.relabelled[p] for p in fates.usable() if p in fates.relabelled)
    return {
        "source_images": len(fates.finding),
        "usable_images": manifest.table.num_rows,
        "quarantined": _aside(fates),
        "relabelled": dict(sorted(relabelled.items())),
        "groups": len(set(manifest.table["group_id"].to_pylist())),
        "label_set": manifest.label_set.name,
        "images_per_class": {c: {s: pairs[c, s] for s in SPLITS} for c in manifest.label_set.classes},
        "digest": manifest.digest,
        "split_digest": manifest.facts["split_digest"],
    }
