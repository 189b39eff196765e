"""What a classifier's probabilities are worth against the truth, as plain JSON values.

Every figure is a point estimate on the images given; `dermaray.evaluation.bootstrap` has their intervals. A figure
that the images do not define, such as the recall of a class without images, is None and never NaN, so that what is
written is JSON that any reader accepts.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from dermaray.decisions.arrays import BoolArray, FloatArray, IntArray
from dermaray.errors import DataError
from dermaray.labels import LabelSet

MIN_TPR = 0.8
"""The sensitivity from which on the partial AUC counts: that of the ISIC 2024 challenge."""

SPECIFICITIES = (0.8, 0.9, 0.95)
"""At which the sensitivity for melanoma is told."""

CALIBRATION_BINS = 15

# What softmax in half precision, or a division by a class prior, may stray from 0 to 1 by rounding.
_TOLERANCE = 1e-3


def compute_metrics(
    probabilities: FloatArray,
    labels: IntArray,
    label_set: LabelSet,
    min_tpr: float = MIN_TPR,
    predicted: IntArray | None = None,
) -> dict[str, Any]:
    """Measure predictions against the truth.

    Args:
        probabilities: floating [N, C], 0 to 1, columns in the order of `label_set.classes`.
        labels: integer [N], 0 to C - 1: the true class of each row.
        label_set: The C classes.
        min_tpr: See `partial_auc`.
        predicted: integer [N]: the answer of each row, where the model has a rule for it. Without one it is the most
            probable class, the first of equals.

    Returns:
        JSON values, fractions of 0 to 1 unless said otherwise:

        - `images`: N.
        - `accuracy`: The share of images whose prediction is right.
        - `balanced_accuracy`: The mean recall of the classes that have images (Brodersen et al. 2010, "The balanced
          accuracy and its posterior distribution"; the goal metric of the ISIC 2018 and 2019 challenges).
        - `macro_auc`: The unweighted mean of the one-vs-rest AUCs of those classes that have one; None where none has.
        - `brier`: The mean over images of the squared differences between probabilities and truth, summed over the
          classes: 0 to 2 (Brier 1950, "Verification of forecasts expressed in terms of probability").
        - `ece`: The expected calibration error of the answer: how far its probability is from how often it is right
          (Guo et al. 2017, "On calibration of modern neural networks"), in `CALIBRATION_BINS` bins of equal width.
        - `melanoma_auc`: The AUC of melanoma against the rest; None where the set has no melanoma, or the images.
        - `melanoma_partial_auc`: See `partial_auc`; None as `melanoma_auc`. `min_tpr` stands beside it.
        - `melanoma_sensitivity_at_specificity`: {specificity: the highest sensitivity for melanoma that any threshold
          reaches with at least that specificity, or None as `melanoma_auc`}.
        - `majority_baseline`: `class`, `accuracy` and `balanced_accuracy` of a classifier that always names the class
          with most images among `labels`, the first of equals.
        - `per_class`: {class: `images`, `recall` (the class's sensitivity), `specificity`, `precision`, `auc`,
          `average_precision`}. Recall is None without images, specificity without images of other classes, precision
          where the class was never predicted, AUC where the images are all of the class or none is, average precision
          without images.
        - `confusion_matrix`: `classes` and the counts, [C, C], under `rows_are_truth_columns_are_predictions`.

        AUC is the area under the receiver operating characteristic, ties counted as a half (Hanley & McNeil 1982).

    Raises:
        DataError: The arrays do not fit each other or the label set, are empty, or hold values out of range.
    """
    check_predictions(probabilities, labels, label_set)
    predicted = answers(probabilities, predicted)
    sure = confidences(probabilities, predicted)
    per_class = _per_class(probabilities, predicted, labels, label_set)
    aucs = [row["auc"] for row in per_class.values() if row["auc"] is not None]
    return {
        "images": len(labels),
        **_accuracies(labels, predicted),
        "macro_auc": float(np.mean(aucs)) if aucs else None,
        "brier": _brier(probabilities, labels),
        "ece": calibration_error(calibration_bins(sure), sure, predicted == labels),
        **_melanoma(probabilities, labels, label_set, min_tpr),
        "min_tpr": min_tpr,
        "majority_baseline": _majority_baseline(labels, label_set),
        "per_class": per_class,
        "confusion_matrix": {
            "classes": list(label_set.classes),
            "rows_are_truth_columns_are_predictions": confusion_matrix(
                labels, predicted, labels=np.arange(len(label_set.classes))
            ).tolist(),
        },
    }


def answers(probabilities: FloatArray, predicted: IntArray | None) -> IntArray:
    """Return what a model answers, [N]; see `compute_metrics`."""
    return probabilities.argmax(axis=1) if predicted is None else predicted


def confidences(probabilities: FloatArray, predicted: IntArray) -> FloatArray:
    """Return the probability of each row's answer, [N]."""
    sure: FloatArray = probabilities[np.arange(len(predicted)), predicted]
    return sure


def check_predictions(probabilities: FloatArray, labels: IntArray, label_set: LabelSet) -> None:
    """Refuse predictions that cannot be measured; see `compute_metrics` for what is right.

    Raises:
        DataError: The arrays do not fit each other or the label set, are empty, or hold values out of range.
    """
    classes = len(label_set.classes)
    if probabilities.ndim != 2 or probabilities.shape[1] != classes:
        raise DataError(
            f"probabilities must have the shape [images, {classes}], one column for each class of {label_set.name}. "
            f"Received: shape {list(probabilities.shape)}"
        )
    if labels.shape != probabilities.shape[:1]:
        raise DataError(
            f"labels must have the shape [{len(probabilities)}], one for each row of probabilities. "
            f"Received: shape {list(labels.shape)}"
        )
    if not len(labels):
        raise DataError("metrics need at least one image. Received: none")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels must be integers, the positions of classes. Received: {labels.dtype}")
    _check_values(probabilities, labels, label_set)


def _check_values(probabilities: FloatArray, labels: IntArray, label_set: LabelSet) -> None:
    bad_rows = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(bad_rows):
        raise DataError(
            f"probabilities must be finite. Received: NaN or infinity in {len(bad_rows)} of {len(labels)} rows, "
            f"the first is row {bad_rows[0]}"
        )
    low, high = float(probabilities.min()), float(probabilities.max())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise DataError(f"probabilities must be 0 to 1. Received: {low:.4g} to {high:.4g}, which looks like logits")
    lowest, highest, classes = int(labels.min()), int(labels.max()), len(label_set.classes)
    if lowest < 0 or highest >= classes:
        raise DataError(
            f"labels must be 0 to {classes - 1}, the positions of the classes of {label_set.name}. "
            f"Received: {lowest} to {highest}"
        )


def _accuracies(labels: IntArray, predicted: IntArray) -> dict[str, float]:
    # balanced_accuracy_score warns of classes that are predicted but absent; the mean recall of those present is equal.
    balanced = recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(labels, predicted)), "balanced_accuracy": float(balanced)}


def _majority_baseline(labels: IntArray, label_set: LabelSet) -> dict[str, Any]:
    majority = int(np.bincount(labels.astype(np.int64)).argmax())
    return {"class": label_set.classes[majority], **_accuracies(labels, np.full_like(labels, majority))}


def partial_auc(false_positives: FloatArray, true_positives: FloatArray, min_tpr: float) -> FloatArray:
    """Return the area between a ROC curve and the line of `min_tpr`, as the ISIC 2024 challenge scores it.

    Args:
        false_positives: Rates at the curve's points, rising, [..., points].
        true_positives: As `false_positives`.
        min_tpr: Sensitivities below it do not count, 0 to 1.

    Returns:
        The area, 0 to 1 - min_tpr, [...]; a coin toss has half the square of that.
    """
    start, end = true_positives[..., :-1], true_positives[..., 1:]
    rise = end - start
    counted = np.clip(end - np.maximum(start, min_tpr), 0, None)
    # Of a segment that crosses the line, the part above it.
    share = np.divide(counted, rise, out=np.zeros_like(rise), where=rise > 0)
    last = false_positives[..., 1:]
    first = last - share * (last - false_positives[..., :-1])
    area: FloatArray = (counted * (1 - (first + last) / 2)).sum(axis=-1)
    return area


def at_specificity(false_positives: FloatArray, true_positives: FloatArray, specificity: float) -> FloatArray:
    """Return the highest sensitivity of a ROC curve's points of at least a specificity; see `partial_auc`."""
    # A rate of one in ten is not above 1 - 0.9 because of rounding.
    reached: FloatArray = np.where(false_positives <= 1 - specificity + 1e-12, true_positives, 0).max(axis=-1)
    return reached


def calibration_bins(sure: FloatArray) -> IntArray:
    """Return the bin of each of `confidences`: 0 to `CALIBRATION_BINS` - 1, upper ends included."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    bins: IntArray = np.searchsorted(edges, sure, side="left")
    return bins


def calibration_error(bins: IntArray, sure: FloatArray, right: BoolArray) -> float:
    """Return `ece` of answers [N]: their `calibration_bins`, their `confidences`, and which of them are right."""
    return float(np.abs(np.bincount(bins, sure - right)).sum() / len(sure))


def _brier(probabilities: FloatArray, labels: IntArray) -> float:
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def _melanoma(probabilities: FloatArray, labels: IntArray, label_set: LabelSet, min_tpr: float) -> dict[str, Any]:
    index = label_set.melanoma_index
    area = None if index is None else _auc(probabilities[:, index], labels == index)
    partial: float | None = None
    sensitivities: dict[str, float | None] = dict.fromkeys(map(str, SPECIFICITIES))
    if area is not None:
        fpr, tpr, _ = roc_curve(labels == index, probabilities[:, index], drop_intermediate=False)
        partial = float(partial_auc(fpr, tpr, min_tpr))
        sensitivities = {str(s): float(at_specificity(fpr, tpr, s)) for s in SPECIFICITIES}
    return {
        "melanoma_auc": area,
        "melanoma_partial_auc": partial,
        "melanoma_sensitivity_at_specificity": sensitivities,
    }


def _per_class(
    probabilities: FloatArray, predicted: IntArray, labels: IntArray, label_set: LabelSet
) -> dict[str, dict[str, Any]]:
    precisions, recalls, _, images = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(label_set.classes)), zero_division=np.nan
    )
    return {
        name: {
            "images": int(images[i]),
            "recall": _or_none(recalls[i]),
            # Recall of all that is not of the class.
            "specificity": _or_none(recall_score(labels != i, predicted != i, zero_division=np.nan)),
            "precision": _or_none(precisions[i]),
            "auc": _auc(probabilities[:, i], labels == i),
            "average_precision": _average_precision(probabilities[:, i], labels == i),
        }
        for i, name in enumerate(label_set.classes)
    }


def _auc(scores: FloatArray, is_class: npt.NDArray[np.bool_]) -> float | None:
    return None if is_class.all() or not is_class.any() else float(roc_auc_score(is_class, scores))


def _average_precision(scores: FloatArray, is_class: npt.NDArray[np.bool_]) -> float | None:
    return float(average_precision_score(is_class, scores)) if is_class.any() else None


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
