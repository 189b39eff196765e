"""Who is looked at by themselves, and when that is flagged."""

import json

import numpy as np
import pytest

from dermaray.evaluation.metrics import compute_metrics
from dermaray.evaluation.subgroups import age_band, measure_subgroups
from dermaray.labels import LabelSet

TWO = LabelSet("custom", ("nevus", "melanoma"), frozenset({"melanoma"}), "melanoma")


@pytest.mark.parametrize(
    ("age", "band"),
    [(0, "0 to 29"), (29.9, "0 to 29"), (30, "30 to 44"), (75, "75 and over"), (110, "75 and over"), (None, None)],
)
def test_ages_are_put_in_bands(age, band):
    assert age_band(age) == band


def test_an_age_that_is_no_number_is_unknown():
    assert age_band(float("nan")) is None


def case(images=200):
    """A model that knows women's lesions, and says of men's the opposite."""
    rng = np.random.default_rng(0)
    labels, sexes = rng.integers(0, 2, images), rng.choice(["female", "male"], images, p=[0.8, 0.2])
    melanoma = np.where((labels == 1) == (sexes == "female"), 0.9, 0.1)
    return np.column_stack([1 - melanoma, melanoma]), labels, np.arange(images), sexes


def test_those_whom_a_model_fails_are_flagged():
    probabilities, labels, groups, sexes = case()
    found = measure_subgroups(
        probabilities, labels, groups, {"sex": sexes.tolist()}, TWO, compute_metrics(probabilities, labels, TWO)
    )
    women, men = found["sex"]["female"], found["sex"]["male"]
    assert (women["accuracy"], men["accuracy"]) == (1, 0)
    assert women["images"] + men["images"] == len(labels)
    assert women["flagged"] == []
    assert men["flagged"] == ["accuracy", "balanced_accuracy", "melanoma_auc"]
    # The others are 0 in every resample, and have no interval.
    assert men["beyond_chance"] == ["accuracy"]
    assert men["melanomas"] == (labels[sexes == "male"] == 1).sum()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_subgroup_has_the_figures_of_its_images():
    rng = np.random.default_rng(1)
    labels, sites = rng.integers(0, 2, 300), rng.choice(["back", "face"], 300)
    probabilities = rng.dirichlet([1, 1], 300)
    overall = compute_metrics(probabilities, labels, TWO)
    found = measure_subgroups(probabilities, labels, np.arange(300), {"site": sites.tolist()}, TWO, overall)
    row = found["site"]["back"]
    alone = compute_metrics(probabilities[sites == "back"], labels[sites == "back"], TWO)
    assert {name: row[name] for name in ("accuracy", "melanoma_auc")} == {
        name: alone[name] for name in ("accuracy", "melanoma_auc")
    }
    low, high = row["intervals"]["accuracy"]
    assert low <= row["accuracy"] <= high


def test_what_chance_may_have_done_is_flagged_as_such():
    """Of 22 images of a face fewer are recognised than of 400, and one of three melanomas."""
    labels = np.array([0] * 19 + [1] * 3 + [0, 1] * 200)
    right = np.r_[np.arange(19) < 11, [True, False, False], np.arange(400) % 10 < 7]
    predicted = np.where(right, labels, 1 - labels)
    probabilities = np.eye(2)[predicted] * 0.6 + 0.2
    sites = ["face"] * 22 + ["back"] * 400
    overall = compute_metrics(probabilities, labels, TWO)
    found = measure_subgroups(probabilities, labels, np.arange(422), {"site": sites}, TWO, overall)["site"]["face"]
    assert (found["flagged"], found["beyond_chance"]) == (["accuracy", "balanced_accuracy"], [])
    # Three melanomas are too few for a mean over classes to have an interval, and for an AUC.
    assert (found["melanomas"], found["melanoma_auc"]) == (3, None)
    assert found["intervals"]["balanced_accuracy"] is found["intervals"]["melanoma_auc"] is None
    assert found["intervals"]["accuracy"][1] > overall["accuracy"]


def test_what_one_patient_has_may_be_chance():
    """All twenty images of one face are wrong: that tells nothing of other faces."""
    labels = np.array([0, 1] * 210)
    right = np.r_[np.zeros(20, bool), np.ones(400, bool)]
    probabilities = np.eye(2)[np.where(right, labels, 1 - labels)] * 0.6 + 0.2
    groups, sites = np.r_[np.zeros(20, int), np.arange(1, 401)], ["face"] * 20 + ["back"] * 400
    overall = compute_metrics(probabilities, labels, TWO)
    found = measure_subgroups(probabilities, labels, groups, {"site": sites}, TWO, overall)["site"]["face"]
    assert (found["flagged"], found["beyond_chance"]) == (["accuracy", "balanced_accuracy"], [])


def test_what_is_unknown_or_rare_is_left_out():
    probabilities, labels, groups, sexes = case()
    sites = ["back"] * 100 + ["face"] * 5 + [None] * 95
    overall = compute_metrics(probabilities, labels, TWO)
    found = measure_subgroups(probabilities, labels, groups, {"sex": sexes.tolist(), "site": sites}, TWO, overall)
    assert list(found) == ["sex"]


def test_a_subgroup_without_the_easy_diagnoses_is_not_flagged_for_that():
    """Whoever has which diagnosis, each of them is recognised as often."""
    three = LabelSet("custom", ("nevus", "melanoma", "wart"), frozenset({"melanoma"}), "melanoma")
    labels = np.repeat([0, 1, 2], 200)
    right = np.concatenate([np.arange(200) < share * 200 for share in (0.5, 0.5, 1.0)])
    predicted = np.where(right, labels, (labels + 1) % 3)
    sites = ["face" if label < 2 and i % 2 else "back" for i, label in enumerate(labels)]
    probabilities = np.eye(3)[predicted] * 0.7 + 0.1
    overall = compute_metrics(probabilities, labels, three)
    found = measure_subgroups(probabilities, labels, np.arange(600), {"site": sites}, three, overall)
    assert found["site"]["face"]["balanced_accuracy"] < overall["balanced_accuracy"] - 0.1
    assert "balanced_accuracy" not in found["site"]["face"]["flagged"]
