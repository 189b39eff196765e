"""What a model's decisions are worth: alerts, prediction sets and referrals against the truth, and against what was
promised when they were fitted.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dermaray.decisions.arrays import BoolArray, FloatArray, IntArray
from dermaray.decisions.decisions import Decided, Decisions, weighted
from dermaray.evaluation.bootstrap import FEWEST_GROUPS, count_groups, resampled_intervals, share_interval
from dermaray.evaluation.weighted import Float64Array
from dermaray.labels import LabelSet

REFERRED = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Shares of the images, the least certain, without which the answers are measured; without none of them for a start."""

Share = tuple[FloatArray, FloatArray]
"""Which images count, and which could; floating [N] each."""

Tree = Mapping[str, "Tree | Share | list[Share]"]
"""Shares by name; a list is the mean of those that are defined."""


def measure_decisions(
    decided: Decided, labels: IntArray, groups: npt.NDArray[Any], label_set: LabelSet, decisions: Decisions
) -> dict[str, Any]:
    """Measure decisions against the truth.

    Args:
        decided: What the model said of N images.
        labels: The true classes, integer [N].
        groups: Which images belong together, [N].
        label_set: The classes.
        decisions: What the model decides by.

    Returns:
        JSON values, fractions of 0 to 1 unless said otherwise, None where the images do not define one:

        - `promised`: What was promised: `alert_sensitivity` (None without an alert) and `coverage`, {class: share, or
          None where no image of it was there to promise by}.
        - `alert_threshold`: The probability of melanoma that gives an alert, or None.
        - `alert_sensitivity`: The share of melanomas with an alert. Like the promise, it counts each group once: a
          lesion, or a patient where the data name them. `alert_sensitivity_of_images`: the same, image by image.
        - `alert_specificity`, `alerts`: The share of other images without an alert, and of all images with one.
        - `alert_or_refer`: The share of images with an alert, with `refer`, or with both.
        - `melanomas_with_neither`: The share of melanomas without either, which counts as `alert_sensitivity` does.
        - `coverage`: The share of groups whose images' prediction sets hold the true class; `coverage_of`, {class: the
          same}. Of a group with some images in which that is so it counts their share.
        - `decisive`, `empty`: The shares of sets of one class, and of none. `set_size`: Classes of a set, in the mean.
        - `referred`, `strange`: The share of images with `refer`, and with an `ood_score` above 1.
        - `kept_accuracy`, `kept_balanced_accuracy`: Of the images without `refer`. A balanced accuracy is None where
          all images of a class are referred.
        - `rest_accuracy`, `rest_balanced_accuracy`: {share of the images that is referred, the least certain first: of
          the others}. Certainty is the probability of the answer, weighed as for the choice of the answer. Intervals
          are for the certainty from which on these images were left.
        - `intervals`: 95 % intervals under the same names; see `bootstrap_intervals`. A balanced accuracy has none
          where fewer than `FEWEST_GROUPS` groups of a class are left.
    """
    shares, means = _shares(decided, labels, groups, label_set, decisions), _means(decided, labels, decisions)
    size = {"set_size": (decided.prediction_set.sum(axis=1).astype(float), np.ones(len(labels)))}
    resampled = resampled_intervals(partial(_weighted, {**shares, **size}), labels, groups, by_class=False)
    return {
        "promised": {
            "alert_sensitivity": decisions.alert and decisions.alert.guaranteed,
            "coverage": {
                name: one.guaranteed if one.groups else None
                for name, one in zip(label_set.classes, decisions.sets, strict=True)
            },
        },
        "alert_threshold": decisions.alert and decisions.alert.probability,
        **_single(_weighted({**shares, **size, **means}, np.ones((1, len(labels))))),
        "intervals": {
            **_widened(resampled, shares, groups),
            **resampled_intervals(partial(_weighted, _known(means, groups)), labels, groups, by_class=True),
        },
    }


def _shares(
    decided: Decided, labels: IntArray, groups: npt.NDArray[Any], label_set: LabelSet, decisions: Decisions
) -> Tree:
    """Return all figures that are shares of images, or of lesions."""
    everyone, right = np.ones(len(labels)), (decided.label == labels).astype(float)
    size, kept = decided.prediction_set.sum(axis=1), (~decided.refer).astype(float)
    covered = decided.prediction_set[np.arange(len(labels)), labels].astype(float)
    lesions = _of_one_lesion(labels, groups)
    own = {name: lesions * (labels == k) for k, name in enumerate(label_set.classes)}
    alerts: Tree = {}
    if decided.alert is not None and label_set.melanoma_index is not None:
        alerts = _alerts(decided.alert, decided.refer, labels == label_set.melanoma_index, lesions)
    return {
        **alerts,
        "coverage": (covered * lesions, lesions),
        "coverage_of": {name: (covered * of_class, of_class) for name, of_class in own.items()},
        "decisive": ((size == 1).astype(float), everyone),
        "empty": ((size == 0).astype(float), everyone),
        "referred": (1 - kept, everyone),
        "strange": ((decided.ood_score > 1).astype(float), everyone),
        "kept_accuracy": (right * kept, kept),
        "rest_accuracy": {share: (right * rest, rest) for share, rest in _rests(decided, decisions).items()},
    }


def _of_one_lesion(labels: IntArray, groups: npt.NDArray[Any]) -> FloatArray:
    """Return which part of its lesion's images, those with its label, each image is; [N]."""
    _, lesion = np.unique(groups, return_inverse=True)
    _, position, sizes = np.unique(np.column_stack([lesion, labels]), axis=0, return_inverse=True, return_counts=True)
    return 1.0 / sizes[position.ravel()]


def _alerts(given: BoolArray, refer: BoolArray, is_melanoma: BoolArray, lesions: FloatArray) -> Tree:
    alert, other = given.astype(float), (~is_melanoma).astype(float)
    either, everyone, melanomas = (given | refer).astype(float), np.ones(len(alert)), is_melanoma * lesions
    return {
        "alert_sensitivity": (alert * melanomas, melanomas),
        "alert_sensitivity_of_images": (alert * is_melanoma, is_melanoma.astype(float)),
        "alert_specificity": ((1 - alert) * other, other),
        "alerts": (alert, everyone),
        "alert_or_refer": (either, everyone),
        "melanomas_with_neither": ((1 - either) * melanomas, melanomas),
    }


def _means(decided: Decided, labels: IntArray, decisions: Decisions) -> Tree:
    """Return the balanced accuracies: means over classes of the shares that are right.

    Where no image of a class is left there is none: without the class that is hardest the others' mean is higher.
    """
    right = decided.label == labels

    def balanced(rest: FloatArray) -> list[Share]:
        return [(rest * (labels == k) * right, rest * (labels == k)) for k in np.unique(labels)]

    return {
        "kept_balanced_accuracy": balanced((~decided.refer).astype(float)),
        "rest_balanced_accuracy": {share: balanced(rest) for share, rest in _rests(decided, decisions).items()},
    }


def _known(means: Tree, groups: npt.NDArray[Any]) -> Tree:
    """Leave out, as undefined, the means of which a class has too few groups left for an interval."""

    def known(leaf: Any) -> Any:
        if isinstance(leaf, Mapping):
            return _known(leaf, groups)
        fewest = min(count_groups(groups[left > 0]) for _, left in leaf)
        return leaf if fewest >= FEWEST_GROUPS else (np.zeros(len(groups)), np.zeros(len(groups)))

    return {name: known(leaf) for name, leaf in means.items()}


def _widened(intervals: dict[str, Any], shares: Tree, groups: npt.NDArray[Any]) -> dict[str, Any]:
    """Widen the intervals of shares as `share_interval` does."""

    def wider(found: Any, leaf: Any) -> Any:
        if isinstance(leaf, Mapping):
            return _widened(found, leaf, groups)
        counted, possible = leaf
        if not possible.any():
            return found
        return share_interval(found, counted.sum() / possible.sum(), groups[possible > 0])

    return {name: wider(found, shares[name]) if name in shares else found for name, found in intervals.items()}


def _rests(decided: Decided, decisions: Decisions) -> dict[str, FloatArray]:
    """Return which images are left, [N], where a share of them, the least certain, is referred."""
    certainty = weighted(decided.probabilities, decisions.label_weights).max(axis=1)
    rank = np.argsort(np.argsort(certainty, kind="stable"))
    return {str(share): (rank >= round(share * len(rank))).astype(float) for share in REFERRED}


def _weighted(tree: Tree, weights: Float64Array) -> dict[str, Any]:
    """Return the tree's figures, [B] each and NaN where undefined, for weights [B, N]."""

    def figure(leaf: Any) -> Any:
        if isinstance(leaf, Mapping):
            return _weighted(leaf, weights)
        if isinstance(leaf, list):
            return np.mean([figure(share) for share in leaf], axis=0)
        counted, possible = leaf
        return (weights @ counted) / (weights @ possible)

    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: figure(leaf) for name, leaf in tree.items()}


def _single(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one weighting as JSON values."""
    return {
        name: _single(value) if isinstance(value, dict) else None if np.isnan(value[0]) else float(value[0])
        for name, value in figures.items()
    }
