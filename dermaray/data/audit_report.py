"""An audit as files: `audit.json` with every case, for programs, and `audit.html`, one page for a person."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from dermaray.data.audit_page import render_audit, shown_uris
from dermaray.data.examine import Examined, examine
from dermaray.data.findings import KINDS, Case, Policies
from dermaray.data.inspect import Progress, preview_images
from dermaray.data.manifest import SPLITS
from dermaray.data.policy import Fates
from dermaray.data.settings import CheckConfig, PrepareConfig
from dermaray.data.source import SourceImage
from dermaray.data.storage import absolute
from dermaray.errors import OutputError
from dermaray.files import write_json
from dermaray.labels import LabelSet

_TYPICAL_SENSITIVITY = 0.8


def describe_audit(
    where: str,
    source: Examined,
    splits: Sequence[str | None],
    leaks: Sequence[str],
    config: PrepareConfig,
    fates: Fates | None = None,
) -> dict[str, Any]:
    """Return what `audit.json` holds.

    Args:
        where: Where the images are.
        source: The images and what is wrong with them.
        splits: The split of every image, or None where it has none.
        leaks: What crosses the splits, in sentences.
        config: The reference, what was done about each finding, or would be, and when a class is too small.
        fates: What became of each image; None where no policy was applied.
    """
    readable = [p for p, seen in enumerate(source.inspected) if seen.format and source.classes[p] is not None]
    counted = fates.usable() if fates else readable
    classes = _classes(source, counted, splits, fates)
    findings = {**source.detection.findings, "small_class": small_classes(classes, config.checks)}
    aside = len(source.images) - len(counted)
    return {
        "source": where,
        "reference": [absolute(place) for place in config.reference],
        "reference_images": sum(known is not None and known.label is not None for known in source.matched),
        "label_set": source.label_set.name,
        "images": len(source.images),
        "usable": len(counted) if fates else None,
        "quarantined": aside if fates else None,
        "gate": {"passes": not leaks, "leaks": list(leaks)},
        "findings": [_finding(kind, findings[kind], config.policies, source, splits, fates) for kind in KINDS],
        "classes": classes,
        "sizes": _sizes(source, counted),
    }


def audit_source(
    images: Sequence[SourceImage],
    label_set: LabelSet,
    reference: Mapping[str, SourceImage],
    where: str,
    config: PrepareConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Read every image on the connected Ray cluster and return what `audit.json` holds; nothing is changed.

    Args:
        images: A source, or the images of a manifest; their official splits are what is judged.
        label_set: The classes.
        reference: What `read_reference` found; empty for none.
        where: Where the images are, for the record.
        config: What would be done, and when a class is too small.
        progress: Called with the number of images read since the last call.
    """
    source = examine(images, label_set, reference, progress)
    leaks = [case.detail for case in source.detection.findings["split_leak"]]
    return describe_audit(where, source, [image.official_split for image in images], leaks, config)


def with_leaks(audit: dict[str, Any], leaks: Sequence[str]) -> dict[str, Any]:
    """Return an audit with further leaks."""
    known = audit["gate"]["leaks"]
    told = list(dict.fromkeys([*known, *leaks]))
    return {**audit, "gate": {"passes": not told, "leaks": told}}


def write_audit(out: Path, audit: dict[str, Any]) -> None:
    """Write `audit.json` and `audit.html` into an existing folder; pictures are read on the connected Ray cluster.

    Raises:
        OutputError: The folder cannot be written.
    """
    page = render_audit(audit, preview_images(shown_uris(audit)))
    try:
        write_json(out / "audit.json", audit)
        (out / "audit.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}. Choose another folder") from error


def small_classes(classes: dict[str, dict[str, int]], checks: CheckConfig) -> list[Case]:
    """Return the classes that have too few groups to be learnt, or to be measured where there is a test split.

    Args:
        classes: Per class `train_groups` and `test_groups`.
        checks: How many are enough.
    """
    cases = []
    split = any(counts["test_groups"] for counts in classes.values())
    for name, counts in classes.items():
        learnt, measured = counts["train_groups"], counts["test_groups"]
        if not counts["images"]:
            cases.append(Case((), f"{name}: not one image"))
            continue
        if learnt < checks.min_train_groups:
            cases.append(
                Case((), f"{name}: {_groups(learnt)} in train; {checks.min_train_groups} are wanted to learn from")
            )
        if split and measured < checks.min_test_groups:
            cases.append(Case((), f"{name}: {_groups(measured)} in test{_uncertainty(measured)}"))
    return cases


def _groups(count: int) -> str:
    return "1 group" if count == 1 else f"{count} groups"


def _uncertainty(groups: int) -> str:
    """Say how little a sensitivity means that is measured on so few (Wilson's interval around 80 %)."""
    if not groups:
        return "; nothing can be measured"
    interval = binomtest(round(_TYPICAL_SENSITIVITY * groups), groups).proportion_ci(method="wilson")
    return f"; a sensitivity of 80 % would be anything from {interval.low:.0%} to {interval.high:.0%}"


def _classes(
    source: Examined, counted: Sequence[int], splits: Sequence[str | None], fates: Fates | None
) -> dict[str, dict[str, int]]:
    """Count the images and groups of each class, over all and per split."""
    named = fates.classes if fates else source.classes
    groups = source.detection.groups
    images = Counter((named[p], splits[p]) for p in counted)
    distinct = Counter((c, s) for c, s, _ in {(named[p], splits[p], groups[p]) for p in counted})
    total = Counter(c for c, _ in {(named[p], groups[p]) for p in counted})
    return {
        name: {
            "images": sum(images[name, split] for split in (*SPLITS, None)),
            "groups": total[name],
            **{split: images[name, split] for split in SPLITS},
            # Where nothing is split yet, all of it could be learnt from.
            "train_groups": distinct[name, "train"] + distinct[name, None],
            "test_groups": distinct[name, "test"],
        }
        for name in source.label_set.classes
    }


def _finding(
    kind: str,
    cases: Sequence[Case],
    policies: Policies,
    source: Examined,
    splits: Sequence[str | None],
    fates: Fates | None,
) -> dict[str, Any]:
    positions = {p for case in cases for p in case.positions}
    aside = [p for p in positions if fates and fates.finding[p] == kind]
    relabelled = [p for p in positions if fates and fates.finding[p] is None and fates.relabelled.get(p) == kind]
    return {
        "finding": kind,
        "title": KINDS[kind].title,
        "meaning": KINDS[kind].meaning,
        "policy": policies.of(kind),
        "images": len(positions),
        "quarantined": len(aside),
        "relabelled": len(relabelled),
        "cases": [
            {"images": [_image(p, source, splits, fates) for p in case.positions], "detail": case.detail}
            for case in cases
        ],
    }


def _image(position: int, source: Examined, splits: Sequence[str | None], fates: Fates | None) -> dict[str, Any]:
    image = source.images[position]
    fate = None
    if fates is not None:
        fate = "kept" if fates.finding[position] is None else "quarantined"
        if fate == "kept" and position in fates.relabelled:
            fate = f"relabelled to {fates.classes[position]}"
    label, split = image.label, splits[position] or image.official_split
    return {"image_id": image.image_id, "uri": image.uri, "label": label, "split": split, "fate": fate}


def _sizes(source: Examined, counted: Sequence[int]) -> dict[str, int]:
    counts = Counter(f"{source.inspected[p].width}x{source.inspected[p].height}" for p in counted)
    return dict(counts.most_common())
