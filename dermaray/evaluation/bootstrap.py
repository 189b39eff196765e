"""How far the figures of an evaluation would move with other images: bootstrap intervals, by whole groups.

A resample draws as many groups of images (a lesion, a patient) as there are, with replacement, each with all its images
(Field & Welsh 2007, "Bootstrapping clustered data"), and of every class as many as it has. An interval holds the middle
95 % of a figure over the resamples (Efron 1979). Images of one lesion are alike: drawn one by one, they would make the
intervals too narrow. Were classes drawn together, many a resample would lack the rarest, and so would its mean over
classes.

scikit-learn computes the figures themselves; over thousands of resamples that would take minutes. Here a resample is a
row of weights, one per image, and all of them go through a figure at once.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dermaray.evaluation.metrics import (
    CALIBRATION_BINS,
    MELANOMA_FIGURES,
    MIN_TPR,
    SPECIFICITIES,
    FloatArray,
    IntArray,
    at_specificity,
    calibration_bins,
    partial_auc,
)
from dermaray.labels import LabelSet

RESAMPLES = 2000
LEVEL = 0.95

_CELLS = 4_000_000
"""Weights that are held at once, 32 MB; what is computed of them takes some times that."""

Float64Array = npt.NDArray[np.float64]


def bootstrap_intervals(
    probabilities: FloatArray,
    labels: IntArray,
    groups: npt.NDArray[Any],
    label_set: LabelSet,
    *,
    min_tpr: float = MIN_TPR,
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
        resamples: How many are drawn.
        seed: They follow from it.

    Returns:
        The figures of `compute_metrics` under their names, [low, high] in place of each. None where no resample defines
        the figure, and where it is the same in all of them: of three images that are all right that says nothing of the
        next. Besides `level`, `resamples` and `groups`, how many.
    """
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    figures = Figures(probabilities, labels, label_set, min_tpr)
    drawn = [figures.of(weights) for weights in _weights(group_of, labels[first], resamples, seed)]
    return {"level": LEVEL, "resamples": resamples, "groups": len(first), **_merge(drawn)}


def _weights(group_of: IntArray, label_of: IntArray, resamples: int, seed: int) -> Iterator[Float64Array]:
    """Yield how often each image was drawn, [some resamples, N] at a time; `label_of` is that of each group."""
    rng = np.random.default_rng(seed)
    at_once = max(_CELLS // len(group_of), 1)
    for start in range(0, resamples, at_once):
        counts = np.empty((min(at_once, resamples - start), len(label_of)))
        for label in np.unique(label_of):
            of_class = np.flatnonzero(label_of == label)
            share = np.full(len(of_class), 1 / len(of_class))
            counts[:, of_class] = rng.multinomial(len(of_class), share, size=len(counts))
        yield counts[:, group_of]


def _merge(drawn: list[dict[str, Any]]) -> dict[str, Any]:
    """Turn the values of a figure over all resamples into its interval, in a tree of dicts."""
    return {
        name: _merge([part[name] for part in drawn])
        if isinstance(value, dict)
        else _interval(np.concatenate([part[name] for part in drawn]))
        for name, value in drawn[0].items()
    }


def _interval(values: Float64Array) -> list[float] | None:
    defined = values[~np.isnan(values)]
    # But for rounding.
    if not len(defined) or np.ptp(defined) < 1e-9:
        return None
    tail = (1 - LEVEL) / 2
    return [float(bound) for bound in np.quantile(defined, [tail, 1 - tail])]


class Figures:
    """The figures of `compute_metrics` for many weightings of the same predictions.

    Args:
        probabilities: See `compute_metrics`.
        labels: See `compute_metrics`.
        label_set: See `compute_metrics`.
        min_tpr: See `compute_metrics`.
    """

    def __init__(self, probabilities: FloatArray, labels: IntArray, label_set: LabelSet, min_tpr: float) -> None:
        self._classes, self._melanoma, self._min_tpr = label_set.classes, label_set.melanoma_index, min_tpr
        self._probabilities, self._labels = probabilities, labels
        classes, predicted = len(self._classes), probabilities.argmax(axis=1)
        truth = np.eye(classes)[labels]
        cells = np.eye(classes * classes)[labels.astype(np.int64) * classes + predicted]
        squares = ((probabilities - truth) ** 2).sum(axis=1, keepdims=True)
        gaps = probabilities.max(axis=1) - (predicted == labels)
        # What is a sum over images: the confusion matrix, the Brier score, by how much each bin is overconfident.
        bins = np.eye(CALIBRATION_BINS)[calibration_bins(probabilities)] * gaps[:, None]
        self._sums = np.hstack([cells, squares, bins])

    def of(self, weights: Float64Array) -> dict[str, Any]:
        """Return the figures, [B] each and NaN where undefined, for weights [B, N] of the images."""
        # Of classes that a resample lacks the shares are 0 / 0.
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._figures(weights)

    def _figures(self, weights: Float64Array) -> dict[str, Any]:
        classes = len(self._classes)
        sums = weights @ self._sums
        matrix = sums[:, : classes * classes].reshape(-1, classes, classes)
        images, answers, right = matrix.sum(axis=2), matrix.sum(axis=1), matrix.diagonal(axis1=1, axis2=2)
        total = images.sum(axis=1)
        rates = [self._rates(weights, k) for k in range(classes)]
        areas = [np.asarray(np.trapezoid(tpr, fpr, axis=1)) for fpr, tpr, _ in rates]
        return {
            "accuracy": right.sum(axis=1) / total,
            "balanced_accuracy": _mean(right / images),
            "macro_auc": _mean(np.stack(areas, axis=1)),
            "brier": sums[:, classes * classes] / total,
            "ece": np.abs(sums[:, -CALIBRATION_BINS:]).sum(axis=1) / total,
            **self._of_melanoma(rates, areas),
            "per_class": {
                name: {
                    "recall": right[:, k] / images[:, k],
                    "specificity": 1 - (answers[:, k] - right[:, k]) / (total - images[:, k]),
                    "precision": right[:, k] / answers[:, k],
                    "auc": areas[k],
                    "average_precision": _average_precision(*rates[k][1:]),
                }
                for k, name in enumerate(self._classes)
            },
        }

    def _of_melanoma(self, rates: list["_Rates"], areas: list[Float64Array]) -> dict[str, Any]:
        if self._melanoma is None:
            return dict.fromkeys(MELANOMA_FIGURES, np.full(1, np.nan))
        area, (fpr, tpr, _) = areas[self._melanoma], rates[self._melanoma]
        defined = np.where(np.isnan(area), np.nan, 1)
        partial = defined * partial_auc(fpr, tpr, self._min_tpr)
        sensitivities = {str(s): defined * at_specificity(fpr, tpr, s) for s in SPECIFICITIES}
        return dict(zip(MELANOMA_FIGURES, (area, partial, sensitivities), strict=True))

    def _rates(self, weights: Float64Array, k: int) -> "_Rates":
        """Return a class's rates [B, points], at no image and at every probability from the highest down."""
        scores = self._probabilities[:, k]
        order = np.argsort(-scores, kind="stable")
        # Images of equal probability are one point, behind the last of them.
        points = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
        ordered = weights[:, order]
        found = np.cumsum(ordered * (self._labels[order] == k), axis=1)[:, points]
        taken = np.cumsum(ordered, axis=1)[:, points]
        found, taken = (np.pad(sums, ((0, 0), (1, 0))) for sums in (found, taken))
        false = taken - found
        return false / false[:, -1:], found / found[:, -1:], found / taken


_Rates = tuple[Float64Array, Float64Array, Float64Array]
"""False-positive rates, true-positive rates and precisions."""


def _average_precision(true_positives: Float64Array, precisions: Float64Array) -> Float64Array:
    steps = np.diff(true_positives, axis=1)
    # Where no image is taken yet, precision is undefined and nothing is found.
    areas: Float64Array = np.where(steps == 0, 0, steps * precisions[:, 1:]).sum(axis=1)
    return areas


def _mean(figures: Float64Array) -> Float64Array:
    """Return the mean over the classes, [B, C], whose figure is defined."""
    means: Float64Array = np.nansum(figures, axis=1) / (~np.isnan(figures)).sum(axis=1)
    return means
