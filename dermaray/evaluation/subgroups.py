"""The figures of a model for women and men, the young and the old, and where on the body a lesion is.

A model may work for most of those whom it was trained on and fail the rest, which one figure for all of them hides
(Daneshjou et al. 2022, "Disparities in dermatology AI performance on a diverse, curated clinical image set").
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dermaray.decisions.arrays import FloatArray, IntArray
from dermaray.evaluation.bootstrap import bootstrap_intervals, count_groups
from dermaray.evaluation.metrics import answers, compute_metrics
from dermaray.labels import LabelSet

FIGURES = ("accuracy", "balanced_accuracy", "melanoma_auc")

GAP = 0.1
"""How far a figure may lie below that of all images before it is flagged: 10 points."""

FEWEST_IMAGES = 20
"""Of fewer the figures would say nothing."""

FEWEST_MELANOMAS = 10
"""Lesions; of fewer the AUC of melanoma would say nothing."""

AGE_BANDS = (0, 30, 45, 60, 75)
"""Years at which the bands begin."""


def measure_subgroups(
    probabilities: FloatArray,
    labels: IntArray,
    groups: npt.NDArray[Any],
    attributes: Mapping[str, Sequence[str | None]],
    label_set: LabelSet,
    overall: Mapping[str, Any],
    predicted: IntArray | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure the images of each value of each attribute by themselves.

    Args:
        probabilities: See `compute_metrics`.
        labels: See `compute_metrics`.
        groups: See `bootstrap_intervals`.
        attributes: By name (`sex`, `age`, `site`) the value of every image, None where it is unknown.
        label_set: See `compute_metrics`.
        overall: What `compute_metrics` returned for all images.
        predicted: See `compute_metrics`.

    Returns:
        JSON values: {attribute: {value: `images`; `melanomas`, how many groups have one; each of `FIGURES`, None where
        undefined, and that of melanoma with fewer than `FEWEST_MELANOMAS`; `intervals` of the same names; `flagged`,
        the figures that lie more than `GAP` below those of all images, balanced accuracy below that over the classes
        that these have; `beyond_chance`, those of the latter whose whole interval lies below}}, in the order of the
        values. Values with fewer than `FEWEST_IMAGES` images, and attributes
        with fewer than two other values, are left out.
    """
    given = answers(probabilities, predicted)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for attribute, values in attributes.items():
        column = np.array([value or "" for value in values])
        names, counts = np.unique(column, return_counts=True)
        kept = [str(n) for n, count in zip(names, counts, strict=True) if n and count >= FEWEST_IMAGES]
        if len(kept) > 1:
            found[attribute] = {}
            for name in kept:
                own = column == name
                found[attribute][name] = _measure(
                    probabilities[own], labels[own], groups[own], label_set, overall, given[own]
                )
    return found


def age_band(age: float | None) -> str | None:
    """Return the band that an age in years is in: `30 to 44`, or `75 and over`."""
    if age is None or not np.isfinite(age):
        return None
    start = max(begin for begin in AGE_BANDS if begin <= max(age, 0))
    later = [begin for begin in AGE_BANDS if begin > start]
    return f"{start} to {later[0] - 1}" if later else f"{start} and over"


def _measure(
    probabilities: FloatArray,
    labels: IntArray,
    groups: npt.NDArray[Any],
    label_set: LabelSet,
    overall: Mapping[str, Any],
    predicted: IntArray,
) -> dict[str, Any]:
    metrics = compute_metrics(probabilities, labels, label_set, predicted=predicted)
    intervals = bootstrap_intervals(probabilities, labels, groups, label_set, predicted=predicted)
    figures = {name: metrics[name] for name in FIGURES}
    melanomas = 0 if label_set.melanoma_index is None else count_groups(groups[labels == label_set.melanoma_index])
    if melanomas < FEWEST_MELANOMAS:
        figures["melanoma_auc"] = intervals["melanoma_auc"] = None
    # A subgroup without the diagnoses that are easy, or hard, is no worse or better off for that.
    recalls = [overall["per_class"][label_set.classes[k]]["recall"] for k in np.unique(labels)]
    of_all = {**{name: overall[name] for name in FIGURES}, "balanced_accuracy": float(np.mean(recalls))}

    def is_beyond_chance(name: str) -> bool:
        return intervals[name] is not None and intervals[name][1] < of_all[name]

    flagged = [name for name, value in figures.items() if value is not None and value < of_all[name] - GAP]
    return {
        "images": len(labels),
        "melanomas": melanomas,
        **figures,
        "intervals": {name: intervals[name] for name in FIGURES},
        "flagged": flagged,
        "beyond_chance": [name for name in flagged if is_beyond_chance(name)],
    }
