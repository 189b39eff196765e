import json
import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_score, recall_score, roc_auc_score

from dermaray.errors import DataError
from dermaray.evaluation.metrics import compute_metrics
from dermaray.labels import LABEL_SETS, LabelSet

THREE = LabelSet("custom", ("melanoma", "nevus", "other"), frozenset({"melanoma"}), "melanoma")


def random_case(label_set, images=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(label_set.classes), images)
    logits = rng.normal(size=(images, len(label_set.classes)))
    logits[np.arange(images), labels] += 1
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def test_figures_agree_with_those_computed_by_hand():
    # Truth: 1 melanoma, 3 nevi. Answers: melanoma; nevus, nevus, melanoma.
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.7, 0.2, 0.1]])
    metrics = compute_metrics(probabilities, np.array([0, 1, 1, 1]), THREE)
    assert metrics == {
        "images": 4,
        "accuracy": pytest.approx(3 / 4),
        "balanced_accuracy": pytest.approx((1 + 2 / 3) / 2),
        "macro_auc": pytest.approx((2 / 3 + 2 / 3) / 2),
        "brier": pytest.approx((0.26 + 0.14 + 0.06 + 1.14) / 4),
        # Four bins of one image each: by 0.4, 0.3 and 0.2 too modest, and by 0.7 too sure.
        "ece": pytest.approx((0.4 + abs(-0.3 + 0.7) + 0.2) / 4),
        # The melanoma outranks two of the three nevi.
        "melanoma_auc": pytest.approx(2 / 3),
        # It is found once a third of the nevi are taken for melanoma, and not before.
        "melanoma_partial_auc": pytest.approx(0.2 * 2 / 3),
        "melanoma_sensitivity_at_specificity": {"0.8": 0, "0.9": 0, "0.95": 0},
        "min_tpr": 0.8,
        "majority_baseline": {
            "class": "nevus",
            "accuracy": pytest.approx(3 / 4),
            "balanced_accuracy": pytest.approx(1 / 2),
        },
        "per_class": {
            "melanoma": {
                "images": 1,
                "recall": 1,
                "specificity": pytest.approx(2 / 3),
                "precision": pytest.approx(1 / 2),
                "auc": pytest.approx(2 / 3),
                "average_precision": pytest.approx(1 / 2),
            },
            "nevus": {
                "images": 3,
                "recall": pytest.approx(2 / 3),
                "specificity": 1,
                "precision": 1,
                "auc": pytest.approx(2 / 3),
                "average_precision": pytest.approx((1 + 1 + 3 / 4) / 3),
            },
            "other": {
                "images": 0,
                "recall": None,
                "specificity": 1,
                "precision": None,
                "auc": None,
                "average_precision": None,
            },
        },
        "confusion_matrix": {
            "classes": ["melanoma", "nevus", "other"],
            "rows_are_truth_columns_are_predictions": [[1, 0, 0], [1, 2, 0], [0, 0, 0]],
        },
    }


@pytest.mark.parametrize("name", sorted(LABEL_SETS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_figures_agree_with_scikit_learn(name, dtype):
    label_set = LABEL_SETS[name]
    probabilities, labels = random_case(label_set)
    probabilities = probabilities.astype(dtype)
    metrics = compute_metrics(probabilities, labels, label_set)
    predicted = probabilities.argmax(axis=1)
    one_hot = np.eye(len(label_set.classes))[labels]
    assert metrics["accuracy"] == pytest.approx(np.mean(predicted == labels))
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert metrics["macro_auc"] == pytest.approx(roc_auc_score(one_hot, probabilities, average="macro"))
    assert metrics["melanoma_auc"] == metrics["per_class"][label_set.melanoma]["auc"]
    rows = list(metrics["per_class"].values())
    assert [r["recall"] for r in rows] == pytest.approx(recall_score(labels, predicted, average=None))
    assert [r["precision"] for r in rows] == pytest.approx(precision_score(labels, predicted, average=None))
    assert [r["auc"] for r in rows] == pytest.approx(roc_auc_score(one_hot, probabilities, average=None))
    counts = metrics["confusion_matrix"]["rows_are_truth_columns_are_predictions"]
    assert counts == confusion_matrix(labels, predicted).tolist()


def test_a_class_that_is_predicted_but_absent_does_not_count_towards_balanced_accuracy(recwarn):
    probabilities = np.array([[0.9, 0.1, 0.0], [0.1, 0.1, 0.8]])
    metrics = compute_metrics(probabilities, np.array([0, 1]), THREE)
    assert metrics["balanced_accuracy"] == pytest.approx(1 / 2)
    assert metrics["per_class"]["other"] == {
        "images": 0,
        "recall": None,
        "specificity": 0.5,
        "precision": 0.0,
        "auc": None,
        "average_precision": None,
    }
    assert [str(w.message) for w in recwarn] == []


def test_a_class_that_is_never_predicted_has_no_precision():
    metrics = compute_metrics(np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]), np.array([0, 1]), THREE)
    row = metrics["per_class"]["nevus"]
    assert (row["images"], row["recall"], row["precision"], row["auc"]) == (1, 0.0, None, 1.0)


def test_images_of_one_class_define_no_auc():
    metrics = compute_metrics(np.array([[0.9, 0.1, 0.0]]), np.array([0]), THREE)
    assert metrics["macro_auc"] is None
    assert metrics["melanoma_auc"] is None
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == 1


def test_a_set_without_melanoma_has_no_melanoma_auc():
    probabilities, labels = random_case(LabelSet("custom", ("a", "b")))
    assert compute_metrics(probabilities, labels, LabelSet("custom", ("a", "b")))["melanoma_auc"] is None


def test_equal_probabilities_are_an_auc_of_a_half_and_the_first_class():
    metrics = compute_metrics(np.full((4, 3), 1 / 3), np.array([0, 1, 1, 2]), THREE)
    assert metrics["macro_auc"] == pytest.approx(0.5)
    assert metrics["per_class"]["melanoma"]["recall"] == 1


def test_the_first_of_equally_frequent_classes_is_the_baseline():
    probabilities, _ = random_case(THREE, images=4)
    assert compute_metrics(probabilities, np.array([2, 1, 2, 1]), THREE)["majority_baseline"]["class"] == "nevus"


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_may_be_integers_of_any_width(dtype):
    probabilities, labels = random_case(THREE)
    assert compute_metrics(probabilities, labels.astype(dtype), THREE) == compute_metrics(probabilities, labels, THREE)


def test_metrics_are_strict_json():
    metrics = compute_metrics(np.array([[0.9, 0.1, 0.0]], dtype=np.float32), np.array([0]), THREE)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


GOOD = np.full((2, 3), 1 / 3)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros(3), np.array([0]), r"\[images, 3\].*Received: shape \[3\]"),
        (np.zeros((2, 4)), np.array([0, 1]), r"\[images, 3\].*Received: shape \[2, 4\]"),
        (GOOD, np.array([0]), r"\[2\].*Received: shape \[1\]"),
        (GOOD, np.array([[0], [1]]), r"\[2\].*Received: shape \[2, 1\]"),
        (np.zeros((0, 3)), np.zeros(0, dtype=int), "at least one image. Received: none"),
        (GOOD, np.array([0.0, 1.0]), "must be integers.*Received: float64"),
        (np.array([[0.5, 0.5, 0], [math.nan, 0, 0]]), np.array([0, 1]), "NaN or infinity in 1 of 2 rows.*row 1"),
        (np.array([[math.inf, 0, 0], [0.5, 0.5, 0]]), np.array([0, 1]), "NaN or infinity in 1 of 2 rows.*row 0"),
        (np.array([[4.0, -2, 0], [1, 0, 0]]), np.array([0, 1]), "must be 0 to 1. Received: -2 to 4"),
        (GOOD, np.array([0, 3]), "must be 0 to 2.*Received: 0 to 3"),
        (GOOD, np.array([-1, 2]), "must be 0 to 2.*Received: -1 to 2"),
    ],
)
def test_a_wrong_input_is_refused_with_what_was_received(probabilities, labels, message):
    with pytest.raises(DataError, match=message):
        compute_metrics(probabilities, labels, THREE)
