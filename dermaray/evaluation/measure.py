"""All figures of a model on some images: metrics, intervals, subgroups, decisions."""

from typing import Any

import pyarrow as pa

from dermaray.data.manifest import count_ungrouped
from dermaray.decisions.arrays import IntArray
from dermaray.decisions.decisions import Decided, Decisions
from dermaray.evaluation.bootstrap import bootstrap_intervals
from dermaray.evaluation.decisions import measure_decisions
from dermaray.evaluation.metrics import MIN_TPR, compute_metrics
from dermaray.evaluation.subgroups import age_band, measure_subgroups
from dermaray.labels import LabelSet


def measure(
    decided: Decided,
    labels: IntArray,
    images: pa.Table,
    label_set: LabelSet,
    decisions: Decisions,
    min_tpr: float = MIN_TPR,
) -> dict[str, Any]:
    """Measure what a model said of images.

    Args:
        decided: What it said of N images.
        labels: The true classes, integer [N].
        images: Their rows of a manifest.
        label_set: The classes.
        decisions: What the model decides by.
        min_tpr: See `compute_metrics`.

    Returns:
        JSON values: what `compute_metrics` returns; `ungrouped`, of how many images neither lesion nor patient is
        named; under `intervals` what `bootstrap_intervals` does, under `subgroups` what `measure_subgroups` does, and
        under `decisions` what `measure_decisions` does.
    """
    groups, said = images["group_id"].to_numpy(), (decided.probabilities, labels)
    metrics = compute_metrics(*said, label_set, min_tpr, decided.label)
    people = {
        "sex": images["sex"].to_pylist(),
        "age": [age_band(age) for age in images["age"].to_pylist()],
        "site": images["site"].to_pylist(),
    }
    return {
        **metrics,
        "ungrouped": count_ungrouped(images),
        "intervals": bootstrap_intervals(*said, groups, label_set, min_tpr=min_tpr, predicted=decided.label),
        "subgroups": measure_subgroups(*said, groups, people, label_set, metrics, decided.label),
        "decisions": measure_decisions(decided, labels, groups, label_set, decisions),
    }
