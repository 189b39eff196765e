"""Two models on the same images: the differences, and which of them are more than chance."""

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from dermaray.decisions.decisions import Decided
from dermaray.evaluation.compare import _page, measure_difference, paired_interval
from dermaray.evaluation.tables import HEADLINES
from dermaray.labels import LabelSet

THREE = LabelSet("three", ("nevus", "melanoma", "wart"), frozenset({"melanoma"}), "melanoma")


def answered(labels, skill, seed):
    """Let a model answer that knows the truth in so many cases of a hundred."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), len(labels))
    knows = rng.random(len(labels)) < skill
    probabilities[knows, labels[knows]] += 1
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    nothing, zeros = np.zeros(len(labels), bool), np.zeros(len(labels), np.float32)
    return Decided(probabilities, probabilities.argmax(axis=1), None, probabilities > 0.5, nothing, zeros)


LABELS = np.arange(300) % 3


def test_the_better_model_is_named_with_its_lead():
    weak, strong = answered(LABELS, 0.2, 0), answered(LABELS, 0.8, 1)
    found = measure_difference((weak, strong), LABELS, np.arange(300), THREE)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in HEADLINES:
        row = found["figures"][name]
        if name == "ece":
            assert row["interval"] is row["better"] is None
        else:
            assert row["better"] == "second", name
            assert row["interval"][0] <= row["difference"] <= row["interval"][1]
    assert found["figures"]["balanced_accuracy"]["difference"] == pytest.approx(
        balanced_accuracy_score(LABELS, strong.label) - balanced_accuracy_score(LABELS, weak.label)
    )
    assert found["figures"]["melanoma_auc"]["first"] == pytest.approx(
        roc_auc_score(LABELS == 1, weak.probabilities[:, 1])
    )
    assert found["figures"]["brier"]["difference"] < 0
    other_way = measure_difference((strong, weak), LABELS, np.arange(300), THREE)
    assert other_way["figures"]["brier"]["better"] == "first"


def test_no_verdict_rests_on_a_few_melanomas():
    labels = np.where(np.arange(300) < 9, 1, np.arange(300) % 2 * 2)
    weak, strong = answered(labels, 0.2, 0), answered(labels, 0.9, 1)
    found = measure_difference((weak, strong), labels, np.arange(300), THREE, resamples=200)["figures"]
    for name in ("melanoma_auc", "melanoma_partial_auc"):
        assert found[name]["difference"] is not None
        assert found[name]["interval"] is found[name]["better"] is None
    assert found["accuracy"]["better"] == "second"


def test_no_verdict_rests_on_the_recall_of_a_few_lesions():
    labels = np.where(np.arange(300) < 4, 1, np.arange(300) % 2 * 2)
    weak, strong = answered(labels, 0.2, 0), answered(labels, 0.9, 1)
    # However clear it looks.
    weak.label[:4], strong.label[:4] = 0, 1
    found = measure_difference((weak, strong), labels, np.arange(300), THREE, resamples=200)["recall"]
    few, *others = (found[THREE.classes[k]] for k in (1, 0, 2))
    assert few["difference"] == 1
    assert few["better"] is None
    assert few["interval"] == pytest.approx([2 * 0.025 ** (1 / 4) - 1, 1])
    assert all(row["better"] == "second" for row in others)


def test_a_difference_that_all_resamples_agree_on_is_told():
    """One model finds none of twelve melanomas, the other all."""
    labels = np.where(np.arange(300) < 12, 1, np.arange(300) % 2 * 2)
    weak, strong = answered(labels, 0.5, 0), answered(labels, 0.5, 1)
    weak.label[:12], strong.label[:12] = 0, 1
    found = measure_difference((weak, strong), labels, np.arange(300), THREE, resamples=200)["recall"]["melanoma"]
    assert (found["first"], found["second"], found["better"]) == (0, 1, "second")
    low, high = found["interval"]
    assert 0 < low < high == 1


def test_intervals_of_differences_count_each_lesion_once():
    lead, groups = np.array([1, 1, 1, 1, 0, 0, 0, 0]), np.array([0, 0, 0, 0, 1, 2, 3, 4])
    # One lesion in which a model is better tells nothing of which is.
    low, high = paired_interval([0.0, 0.4], lead, groups)
    assert low == pytest.approx((2 * 0.025 - 1) / 5)
    assert high == 0.4
    assert paired_interval(None, np.zeros(8), groups) == pytest.approx([-(1 - 0.025**0.2), 1 - 0.025**0.2])
    assert paired_interval(None, np.zeros(0), np.zeros(0)) is None
    assert paired_interval([0.1, 0.3], np.ones(40), np.arange(40)) == [0.1, 0.3]


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_intervals_of_differences_hold_the_truth(share):
    """Of twelve lesions a model alone recognises so many, and the other as many."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        lead = rng.choice([-1.0, 0.0, 1.0], 12, p=[share, 1 - 2 * share, share])
        means = rng.choice(lead, (500, 12)).mean(axis=1)
        resampled = None if np.ptp(lead) == 0 else np.quantile(means, [0.025, 0.975]).tolist()
        low, high = paired_interval(resampled, lead, np.arange(12))
        hits += low <= 0 <= high
    assert hits >= 0.95 * 400


@pytest.mark.parametrize("trained", [(True, True), (False, True), (False, False)])
def test_the_page_says_which_models_know_the_images(trained):
    weak, strong = answered(LABELS, 0.2, 0), answered(LABELS, 0.8, 1)
    one = {"name": "m", "version": "1", "digest": "a" * 64, "fitted_on": 0, "leaks": []}
    page = _page(
        {
            "models": [{**one, "trained_on": knows} for knows in trained],
            "data": {"source": "clinic", "digest": "d" * 64, "split": "train"},
            "leaks": [],
            "left_out": 0,
            **measure_difference((weak, strong), LABELS, np.arange(300), THREE, resamples=20),
        }
    )
    assert page.count("trained on these very") == sum(trained)
    assert ("Both models were trained on these images" in page) == all(trained)


def test_equals_are_told_apart_in_one_of_twenty_cases():
    told = []
    for seed in range(40):
        pair = answered(LABELS, 0.5, 2 * seed), answered(LABELS, 0.5, 2 * seed + 1)
        found = measure_difference(pair, LABELS, np.arange(300), THREE, resamples=300)
        told.append(found["figures"]["accuracy"]["better"] is not None)
    assert np.mean(told) < 0.2


def test_paired_images_tell_more_than_each_model_by_itself():
    model = answered(LABELS, 0.5, 0)
    # Five more answers are right, on the same images; an interval of either accuracy spans over eleven points.
    wrong = np.flatnonzero(model.label != LABELS)[:8]
    label = model.label.copy()
    label[wrong] = LABELS[wrong]
    better = Decided(model.probabilities, label, None, model.prediction_set, model.refer, model.ood_score)
    found = measure_difference((model, better), LABELS, np.arange(300), THREE)
    assert found["figures"]["accuracy"]["better"] == "second"
    assert found["figures"]["melanoma_auc"]["interval"] is None
    assert found["answers"]["only_second"] == 8
    assert found["answers"]["only_first"] == 0
    assert found["answers"]["p_value"] == pytest.approx(2 * 0.5**8)


def test_a_model_is_no_better_than_itself():
    model = answered(LABELS, 0.5, 0)
    found = measure_difference((model, model), LABELS, np.arange(300), THREE)
    assert all(row["difference"] == 0 and row["better"] is None for row in found["figures"].values())
    assert found["answers"]["p_value"] == 1
