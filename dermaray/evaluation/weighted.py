"""The figures of an evaluation for many weightings of its images at once.

scikit-learn computes them of one; of the thousands of resamples that an interval takes it would take minutes. Here a
resample is a row of weights, one per image, and many of them go through a figure together.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from dermaray.decisions.arrays import FloatArray, IntArray
from dermaray.evaluation.metrics import (
    CALIBRATION_BINS,
    SPECIFICITIES,
    at_specificity,
    calibration_bins,
    confidences,
    partial_auc,
)
from dermaray.labels import LabelSet

Float64Array = npt.NDArray[np.float64]


class Figures:
    """The figures of `compute_metrics` for many weightings of the same predictions.

    Args:
        probabilities: See `compute_metrics`.
        labels: See `compute_metrics`.
        label_set: See `compute_metrics`.
        min_tpr: See `compute_metrics`.
        predicted: See `compute_metrics`.
    """

    def __init__(
        self, probabilities: FloatArray, labels: IntArray, label_set: LabelSet, min_tpr: float, predicted: IntArray
    ) -> None:
        self._label_set, self._min_tpr = label_set, min_tpr
        self._probabilities, self._labels = probabilities, labels
        one_hot, sure = np.eye(len(label_set.classes)), confidences(probabilities, predicted)
        truth, right = one_hot[labels], predicted == labels
        squares = ((probabilities - truth) ** 2).sum(axis=1, keepdims=True)
        too_sure = np.eye(CALIBRATION_BINS)[calibration_bins(sure)] * (sure - right)[:, None]
        # What is a sum over images: those of each class, answers of each, right ones of each, and so on.
        self._parts = [truth, one_hot[predicted], truth * right[:, None], squares, too_sure]

    def __call__(self, weights: Float64Array) -> dict[str, Any]:
        """Return the figures, [B] each and NaN where undefined, for weights [B, N] of the images."""
        # Of classes that a resample lacks the shares are 0 / 0.
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._figures(weights)

    def _figures(self, weights: Float64Array) -> dict[str, Any]:
        images, answers, right, squares, too_sure = (weights @ part for part in self._parts)
        total = images.sum(axis=1)
        undefined = np.full(len(weights), np.nan)
        melanoma: dict[str, Any] = {
            "melanoma_auc": undefined,
            "melanoma_partial_auc": undefined,
            "melanoma_sensitivity_at_specificity": dict.fromkeys(map(str, SPECIFICITIES), undefined),
        }
        per_class = {}
        for k, name in enumerate(self._label_set.classes):
            # One class at a time: rates are as large as the weights.
            rates = self._rates(weights, k)
            per_class[name] = {
                "recall": right[:, k] / images[:, k],
                "specificity": 1 - (answers[:, k] - right[:, k]) / (total - images[:, k]),
                "precision": right[:, k] / answers[:, k],
                "auc": np.asarray(np.trapezoid(rates[1], rates[0], axis=1)),
                "average_precision": _average_precision(*rates[1:]),
            }
            if k == self._label_set.melanoma_index:
                melanoma = self._of_melanoma(rates, per_class[name]["auc"])
        return {
            "accuracy": right.sum(axis=1) / total,
            "balanced_accuracy": _mean(right / images),
            "macro_auc": _mean(np.stack([row["auc"] for row in per_class.values()], axis=1)),
            "brier": squares[:, 0] / total,
            "ece": np.abs(too_sure).sum(axis=1) / total,
            **melanoma,
            "per_class": per_class,
        }

    def _of_melanoma(self, rates: "_Rates", area: Float64Array) -> dict[str, Any]:
        fpr, tpr, _ = rates
        defined = np.where(np.isnan(area), np.nan, 1)
        sensitivities = {str(s): defined * at_specificity(fpr, tpr, s) for s in SPECIFICITIES}
        return {
            "melanoma_auc": area,
            "melanoma_partial_auc": defined * partial_auc(fpr, tpr, self._min_tpr),
            "melanoma_sensitivity_at_specificity": sensitivities,
        }

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
