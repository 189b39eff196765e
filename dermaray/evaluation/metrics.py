"""What a classifier's probabilities are worth against the truth, as plain JSON values.

Every figure is a point estimate on the images given. A figure that the images do not define, such as the recall of a
class without images, is None and never NaN, so that what is written is JSON that any reader accepts.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from dermaray.errors import DataError
from dermaray.labels import LabelSet

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]

# What softmax in half precision, or a division by a class prior, may stray from 0 to 1 by rounding.
_TOLERANCE = 1e-3


def compute_metrics(probabilities: FloatArray, labels: IntArray, label_set: LabelSet) -> dict[str, Any]:
    """Measure predictions against the truth; the prediction is the most probable class, the first of equals.

    Args:
        probabilities: floating [N, C], 0 to 1, columns in the order of `label_set.classes`.
        labels: integer [N], 0 to C - 1: the true class of each row.
        label_set: The C classes.

    Returns:
        JSON values, fractions of 0 to 1 unless said otherwise:

        - `images`: N.
        - `accuracy`: The share of images whose prediction is right.
        - `balanced_accuracy`: The mean recall of the classes that have images (Brodersen et al. 2010, "The balanced
          accuracy and its posterior distribution"; the goal metric of the ISIC 2018 and 2019 challenges).
        - `macro_auc`: The unweighted mean of the one-vs-rest AUCs of those classes that have one; None where none has.
        - `melanoma_auc`: The AUC of melanoma against the rest; None where the set has no melanoma.
        - `majority_baseline`: `class`, `accuracy` and `balanced_accuracy` of a classifier that always names the class
          with most images among `labels`, the first of equals.
        - `per_class`: {class: `images`, `recall`, `precision`, `auc`}. Recall is None without images, precision where
          the class was never predicted, AUC where the images are all of the class or none is.
        - `confusion_matrix`: `classes` and the counts, [C, C], under `rows_are_truth_columns_are_predictions`.

        AUC is the area under the receiver operating characteristic, ties counted as a half (Hanley & McNeil 1982).

    Raises:
        DataError: The arrays do not fit each other or the label set, are empty, or hold values out of range.
    """
    check_predictions(probabilities, labels, label_set)
    predicted = probabilities.argmax(axis=1)
    per_class = _per_class(probabilities, predicted, labels, label_set)
    aucs = [row["auc"] for row in per_class.values() if row["auc"] is not None]
    melanoma = label_set.melanoma
    return {
        "images": len(labels),
        **_accuracies(labels, predicted),
        "macro_auc": float(np.mean(aucs)) if aucs else None,
        "melanoma_auc": None if melanoma is None else per_class[melanoma]["auc"],
        "majority_baseline": _majority_baseline(labels, label_set),
        "per_class": per_class,
        "confusion_matrix": {
            "classes": list(label_set.classes),
            "rows_are_truth_columns_are_predictions": confusion_matrix(
                labels, predicted, labels=np.arange(len(label_set.classes))
            ).tolist(),
        },
    }


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
            "precision": _or_none(precisions[i]),
            "auc": _auc(probabilities[:, i], labels == i),
        }
        for i, name in enumerate(label_set.classes)
    }


def _auc(scores: FloatArray, is_class: npt.NDArray[np.bool_]) -> float | None:
    return None if is_class.all() or not is_class.any() else float(roc_auc_score(is_class, scores))


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
