"""How well the figures of an evaluation are known: bootstrap intervals, by whole groups.

A resample draws as many groups of images (a lesion, a patient) as there are, with replacement, each with all its images
(Field & Welsh 2007, "Bootstrapping clustered data"). An interval holds the middle 95 % of a figure over the resamples
(Efron 1979). Images of one lesion are alike: drawn one by one, they would make the intervals too narrow.

Three kinds of figure need more. An accuracy or a class's share that is 1 or 0 is so in every resample; its interval is
the exact one of as many independent groups (Clopper & Pearson 1934). Of a mean over classes many a resample would leave
out the rarest, so for these the groups of each class are drawn among themselves. The calibration error of a resample is
larger than that of the images, by chance alone, so its interval is turned round: as far below the figure as the
resamples are above it. It reaches to 0 where the error is no larger than chance would make it, were every answer right
as often as it says (Broecker & Smith 2007, "Increasing the reliability of reliability diagrams").

A figure that rests on too few groups has none: they stand in every resample, as if it were known.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from dermaray.decisions.arrays import BoolArray, FloatArray, IntArray
from dermaray.evaluation.metrics import MIN_TPR, answers, calibration_bins, calibration_error, confidences
from dermaray.evaluation.weighted import Figures, Float64Array
from dermaray.labels import LabelSet

RESAMPLES = 2000
LEVEL = 0.95

MEANS_OVER_CLASSES = ("balanced_accuracy", "macro_auc")
"""Figures whose resamples are drawn within each class."""

FEWEST_GROUPS = 5
"""Where a class has fewer, means over classes have no interval: it would be drawn nearly alike in every resample, as if
its figure were known, and counts as much as the others."""

FEWEST_COUNTED = 10
"""Where a share counts fewer, or leaves out so few, its interval is widened; see `share_interval`."""

FEWEST_RANKED = 10
"""Where a class has fewer, or all others together, what is read off its curves has no interval: with one lesion, the
same in every resample, it would tell of the others alone."""

_CELLS = 4_000_000
"""Weights that are held at once, 32 MB; what is computed of them takes ten times that."""


def bootstrap_intervals(
    probabilities: FloatArray,
    labels: IntArray,
    groups: npt.NDArray[Any],
    label_set: LabelSet,
    *,
    min_tpr: float = MIN_TPR,
    predicted: IntArray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Return 95 % intervals of what `compute_metrics` returns.

    Args:
        probabilities: See `compute_metrics`.
        labels: See `compute_metrics`.
        groups: [N], any values that can be sorted: which images belong together.
        label_set: See `compute_metrics`.
        min_tpr: See `compute_metrics`.
        predicted: See `compute_metrics`.
        resamples: How many are drawn.
        seed: They follow from it.

    Returns:
        The figures of `compute_metrics` under their names, [low, high] in place of each. None where no resample defines
        the figure, and where it is the same in nearly all of them, unless it is a share that `share_interval` tells
        of: `accuracy`, or a class's `recall`, `specificity` or `precision`; of `MEANS_OVER_CLASSES` where a class has
        fewer than `FEWEST_GROUPS`; and of a class's `auc` and `average_precision`, and of melanoma's figures, where
        `known_intervals` says so. Besides `level`, `resamples` and `groups`, how many.
    """
    predicted = answers(probabilities, predicted)
    figures = Figures(probabilities, labels, label_set, min_tpr, predicted)
    intervals = known_intervals(figures, labels, groups, label_set, resamples=resamples, seed=seed)
    measured = figures(np.ones((1, len(labels))))
    intervals["accuracy"] = share_interval(intervals["accuracy"], measured["accuracy"][0], groups)
    for k, (name, row) in enumerate(intervals["per_class"].items()):
        possible = {"recall": labels == k, "specificity": labels != k, "precision": predicted == k}
        for figure, images in possible.items():
            row[figure] = share_interval(row[figure], measured["per_class"][name][figure][0], groups[images])
    if intervals["ece"] is not None:
        sure = confidences(probabilities, predicted)
        intervals["ece"] = _calibration_interval(sure, predicted == labels, groups, intervals["ece"], resamples, seed)
    return {"level": LEVEL, "resamples": resamples, "groups": count_groups(groups), **intervals}


def known_intervals(
    figures: Callable[[Float64Array], dict[str, Any]],
    labels: IntArray,
    groups: npt.NDArray[Any],
    label_set: LabelSet,
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Return 95 % intervals of the figures of `Figures`, or of what has their names.

    Args:
        figures: Gives them for weights; see `resampled_intervals`.
        labels: See `compute_metrics`.
        groups: See `bootstrap_intervals`.
        label_set: See `compute_metrics`.
        resamples: How many are drawn.
        seed: They follow from it.

    Returns:
        The tree with [low, high] for each figure. None where resampling tells nothing; of `MEANS_OVER_CLASSES` where a
        class has fewer than `FEWEST_GROUPS`; and of all that is read off the curves of a class with fewer than
        `FEWEST_RANKED`, or that all but so few have.
    """
    intervals, by_class = (
        resampled_intervals(figures, labels, groups, by_class=whether, resamples=resamples, seed=seed)
        for whether in (False, True)
    )
    intervals.update({name: by_class[name] for name in MEANS_OVER_CLASSES})
    for k, row in enumerate(intervals["per_class"].values()):
        if min(count_groups(groups[images]) for images in (labels == k, labels != k)) < FEWEST_RANKED:
            row.update(auc=None, average_precision=None)
            if k == label_set.melanoma_index:
                intervals.update(melanoma_auc=None, melanoma_partial_auc=None)
                sensitivities = intervals["melanoma_sensitivity_at_specificity"]
                intervals["melanoma_sensitivity_at_specificity"] = dict.fromkeys(sensitivities)
    return intervals


def resampled_intervals(
    figures: Callable[[Float64Array], dict[str, Any]],
    labels: IntArray,
    groups: npt.NDArray[Any],
    *,
    by_class: bool,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Return 95 % intervals of any figures.

    Args:
        figures: Gives them in a tree, [B] each and NaN where undefined, for weights [B, N] of the N images.
        labels: See `compute_metrics`.
        groups: See `bootstrap_intervals`.
        by_class: Draw the groups of each class among themselves, for a mean over classes; see `FEWEST_GROUPS`.
        resamples: How many are drawn.
        seed: They follow from it.

    Returns:
        The tree with [low, high] for each figure, or None; see `bootstrap_intervals`.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    classes = np.unique(np.column_stack([group_of, labels]), axis=0)[:, 1]
    if by_class and np.unique(classes, return_counts=True)[1].min() < FEWEST_GROUPS:
        return _intervals(figures(np.full((1, len(labels)), np.nan)))
    strata = _rarest_class(labels, group_of) if by_class else np.zeros(group_of.max() + 1, int)
    return _intervals(_drawn(figures, group_of, strata, resamples, seed))


def count_groups(groups: npt.NDArray[Any]) -> int:
    """Return how many lesions or patients images [N] are of."""
    return len(np.unique(groups))


def share_interval(resampled: list[float] | None, share: float, groups: npt.NDArray[Any]) -> list[float] | None:
    """Return the 95 % interval of a share, widened where what it counts, or leaves out, is rare.

    Resamples of few cases cannot hold more than a few, and would promise more of one miss than of none. The binomial
    interval (Clopper and Pearson 1934) of as many draws as there are groups can.

    Args:
        resampled: What resampling has found, or None where the share was the same in all resamples.
        share: It; NaN where it is undefined, which has no interval.
        groups: [N], any values that can be sorted: which of the images that it is a share of belong together.
    """
    number = count_groups(groups)
    counted = share * number
    if np.isnan(share) or min(counted, number - counted) >= FEWEST_COUNTED:
        return resampled
    return covering(exact_interval(counted, number), resampled)


def exact_interval(counted: float, number: float) -> list[float]:
    """Return the 95 % interval of Clopper and Pearson (1934) for a share of so many draws, which may count in part."""
    tail = (1 - LEVEL) / 2
    # By the distribution itself: `binomtest` takes whole numbers only.
    low = float(beta.ppf(tail, counted, number - counted + 1)) if counted > 0 else 0.0
    high = float(beta.ppf(1 - tail, counted + 1, number - counted)) if counted < number else 1.0
    return [low, high]


def covering(interval: list[float], other: list[float] | None) -> list[float]:
    """Return the interval that holds both, or the first where there is no other."""
    return interval if other is None else [min(interval[0], other[0]), max(interval[1], other[1])]


def _calibration_interval(
    sure: FloatArray,
    right: BoolArray,
    groups: npt.NDArray[Any],
    drawn: list[float],
    resamples: int,
    seed: int,
) -> list[float]:
    """Return the interval of the calibration error, by that of its resamples."""
    bins = calibration_bins(sure)
    measured = calibration_error(bins, sure, right)
    low, high = (float(2 * measured - bound) for bound in reversed(drawn))
    # The images of a group are right together, or not at all: chance does the most that it can.
    _, group_of = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    by_chance = [
        calibration_error(bins, sure, rng.random(group_of.max() + 1)[group_of] < sure) for _ in range(resamples)
    ]
    tail = (1 - LEVEL) / 2
    return [0.0 if measured <= np.quantile(by_chance, 1 - tail) else max(low, 0.0), max(high, measured)]


def _rarest_class(labels: IntArray, group_of: IntArray) -> IntArray:
    """Return of each group the class of its images that is rarest in all, [groups]."""
    counts = np.bincount(labels.astype(np.int64))
    by_rank = np.argsort(counts, kind="stable")
    ranks = np.full(group_of.max() + 1, len(counts))
    np.minimum.at(ranks, group_of, np.argsort(by_rank)[labels])
    classes: IntArray = by_rank[ranks]
    return classes


def _drawn(
    figures: Callable[[Float64Array], dict[str, Any]],
    group_of: IntArray,
    strata: IntArray,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return the figures of all resamples; groups are drawn among those of their stratum."""
    rng = np.random.default_rng(seed)
    at_once = max(_CELLS // len(group_of), 1)
    parts = []
    for start in range(0, resamples, at_once):
        counts = np.empty((min(at_once, resamples - start), len(strata)))
        for stratum in np.unique(strata):
            among = np.flatnonzero(strata == stratum)
            counts[:, among] = rng.multinomial(len(among), np.full(len(among), 1 / len(among)), size=len(counts))
        parts.append(figures(counts[:, group_of]))
    return _joined(parts)


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Put trees of figures together, leaf by leaf."""
    return {
        name: _joined([part[name] for part in parts])
        if isinstance(value, dict)
        else np.concatenate([part[name] for part in parts])
        for name, value in parts[0].items()
    }


def _intervals(drawn: dict[str, Any]) -> dict[str, Any]:
    """Turn the values of each figure, in a tree, into its interval."""
    return {name: _intervals(v) if isinstance(v, dict) else _interval(v) for name, v in drawn.items()}


def _interval(values: Float64Array) -> list[float] | None:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    tail = (1 - LEVEL) / 2
    low, high = (float(bound) for bound in np.quantile(defined, [tail, 1 - tail]))
    # But for rounding.
    return [low, high] if high - low > 1e-9 else None
