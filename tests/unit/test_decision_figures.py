"""Decisions against the truth: each figure counted by hand, or by scikit-learn."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from dermaray.decisions.decisions import Decided
from dermaray.evaluation.decisions import measure_decisions
from dermaray.labels import LabelSet

TWO = LabelSet("two", ("nevus", "melanoma"), frozenset({"melanoma"}), "melanoma")
NO_MELANOMA = LabelSet("two", ("wart", "mole"), frozenset(), None)


def by_hand(decisions_of, label_set=TWO):
    """Four nevi, two melanomas, in the order of how sure the answer is."""
    decisions = decisions_of(label_set)
    nevus = np.array([0.9, 0.8, 0.3, 0.6, 0.45, 0.1], np.float32)
    labels = np.array([0, 0, 0, 0, 1, 1])
    decided = Decided(
        probabilities=np.column_stack([nevus, 1 - nevus]),
        label=np.array([0, 0, 1, 0, 1, 1]),
        alert=np.array([False, False, True, True, False, True]) if label_set is TWO else None,
        prediction_set=np.array([[1, 0], [1, 0], [0, 1], [1, 1], [1, 0], [0, 0]], bool),
        refer=np.array([False, False, False, True, False, True]),
        ood_score=np.array([0.5, 1.5, 0.2, 0.3, 0.4, 0.1], np.float32),
    )
    return measure_decisions(decided, labels, np.arange(6), label_set, decisions), decisions


def test_figures_of_a_small_case(decisions_of):
    figures, decisions = by_hand(decisions_of)
    assert figures["promised"]["alert_sensitivity"] == decisions.alert.guaranteed
    assert figures["promised"]["coverage"] == {"nevus": 0.9, "melanoma": 0.9}
    assert figures["alert_threshold"] == decisions.alert.probability
    expected = {
        "alert_sensitivity": 1 / 2,
        "alert_specificity": 2 / 4,
        "alerts": 3 / 6,
        "alert_or_refer": 3 / 6,
        "melanomas_with_neither": 1 / 2,
        "coverage": 3 / 6,
        "decisive": 4 / 6,
        "empty": 1 / 6,
        "set_size": 1,
        "referred": 2 / 6,
        "strange": 1 / 6,
        "kept_accuracy": 3 / 4,
        "kept_balanced_accuracy": (2 / 3 + 1) / 2,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert figures["coverage_of"] == {"nevus": 3 / 4, "melanoma": 0}


def test_nothing_is_promised_of_a_class_that_was_not_validated(decisions_of):
    decisions = decisions_of(TWO)
    unseen = replace(decisions, sets=(decisions.sets[0], decisions.sets[1]._replace(groups=0)))
    decided = unseen(np.array([[0.4, 0.6]] * 4, np.float32), np.zeros((4, 5), np.float32))
    figures = measure_decisions(decided, np.array([0, 0, 1, 1]), np.arange(4), TWO, unseen)
    assert figures["promised"]["coverage"] == {"nevus": decisions.sets[0].guaranteed, "melanoma": None}


def test_beside_a_promise_each_lesion_counts_once(decisions_of):
    hit = np.array([True, True, True, False, False, True])
    decided = Decided(
        probabilities=np.tile(np.array([0.4, 0.6], np.float32), (6, 1)),
        label=np.ones(6, int),
        alert=hit,
        prediction_set=np.column_stack([hit, hit]),
        refer=np.zeros(6, bool),
        ood_score=np.zeros(6, np.float32),
    )
    # Of one melanoma there are three images, of another one; two nevi are one lesion.
    labels, lesions = np.array([1, 1, 1, 1, 0, 0]), np.array(["a", "a", "a", "b", "c", "c"])
    figures = measure_decisions(decided, labels, lesions, TWO, decisions_of(TWO))
    assert figures["alert_sensitivity"] == pytest.approx((1 + 0) / 2)
    assert figures["alert_sensitivity_of_images"] == pytest.approx(3 / 4)
    assert figures["coverage_of"] == pytest.approx({"nevus": 1 / 2, "melanoma": 1 / 2})
    assert figures["coverage"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert figures["alert_specificity"] == pytest.approx(1 / 2)


def test_the_least_certain_are_left_out_first(decisions_of):
    figures, _ = by_hand(decisions_of)
    labels, answers = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 1, 1])
    # From the most certain answer down.
    for share, left in {"0.0": range(6), "0.2": (0, 1, 2, 3, 5), "0.3": (0, 1, 2, 5), "0.5": (0, 1, 5)}.items():
        kept = list(left)
        assert figures["rest_accuracy"][share] == pytest.approx((labels == answers)[kept].mean())
        assert figures["rest_balanced_accuracy"][share] == pytest.approx(
            balanced_accuracy_score(labels[kept], answers[kept])
        )


def test_intervals_have_the_names_of_the_figures(decisions_of):
    figures, _ = by_hand(decisions_of)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert set(figures) - set(figures["intervals"]) == {"promised", "alert_threshold", "intervals"}
    low, high = figures["intervals"]["rest_accuracy"]["0.0"]
    assert low < figures["rest_accuracy"]["0.0"] < high
    # No melanoma has it in its set, whatever is drawn: none of two.
    assert figures["intervals"]["coverage_of"]["melanoma"] == pytest.approx([0, 1 - 0.025 ** (1 / 2)])
    # It is no share, and its one value here no bound.
    assert figures["set_size"] == 1
    assert figures["intervals"]["set_size"][1] > 1


@pytest.mark.parametrize("referred", [15, 16])
def test_a_mean_over_classes_of_which_few_lesions_are_left_has_no_interval(referred, decisions_of):
    labels = np.repeat([0, 1], [60, 20])
    decided = Decided(
        probabilities=np.tile(np.array([0.7, 0.3], np.float32), (80, 1)),
        label=(np.arange(80) % 3 == 0).astype(int),
        alert=None,
        prediction_set=np.tile([True, False], (80, 1)),
        refer=np.arange(80) >= 80 - referred,
        ood_score=np.zeros(80, np.float32),
    )
    figures = measure_decisions(decided, labels, np.arange(80), NO_MELANOMA, decisions_of(NO_MELANOMA))
    assert figures["kept_balanced_accuracy"] is not None
    assert (figures["intervals"]["kept_balanced_accuracy"] is None) == (referred == 16)


def test_without_alerts_there_are_no_figures_of_them(decisions_of):
    figures, _ = by_hand(decisions_of, NO_MELANOMA)
    assert figures["alert_threshold"] is None
    assert not [name for name in figures if name.startswith("alert_s") or name == "alerts"]


def test_where_a_class_is_referred_as_a_whole_there_is_no_balanced_accuracy_of_the_rest(decisions_of):
    labels = np.array([0, 0, 0, 1, 1])
    decided = Decided(
        probabilities=np.tile(np.array([0.7, 0.3], np.float32), (5, 1)),
        label=np.zeros(5, int),
        alert=None,
        prediction_set=np.tile([True, False], (5, 1)),
        refer=labels == 1,
        ood_score=np.zeros(5, np.float32),
    )
    figures = measure_decisions(decided, labels, np.arange(5), NO_MELANOMA, decisions_of(NO_MELANOMA))
    # It names all but one class right, and of that none: without it, it would be perfect.
    assert figures["kept_accuracy"] == 1
    assert figures["kept_balanced_accuracy"] is None
    assert figures["intervals"]["kept_balanced_accuracy"] is None
