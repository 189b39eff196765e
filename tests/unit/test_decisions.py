"""Decisions: calibrated, with the guarantees that they state, and the same when read back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import beta
from sklearn.metrics import log_loss, roc_auc_score

from dermaray.decisions.calibration import Calibration, fit_calibration
from dermaray.decisions.decisions import Decisions, weighted
from dermaray.decisions.fit import fit_decisions
from dermaray.decisions.novelty import Novelty, fit_novelty
from dermaray.decisions.settings import DecisionConfig
from dermaray.decisions.thresholds import Threshold, certain_threshold, covering_threshold, one_of_each
from dermaray.labels import LABEL_SETS, LabelSet

THREE = LabelSet("three", ("nevus", "melanoma", "wart"), frozenset({"melanoma"}), "melanoma")
NO_MELANOMA = LabelSet("two", ("wart", "mole"), frozenset(), None)


def drawn(images, classes=3, sharpness=1.0, shares=None, seed=0):
    """Draw labels from probabilities, and give those of a network that is too sure or not sure enough."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)) * 1.5 + np.log(shares or np.full(classes, 1 / classes))
    labels = (rng.random((images, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1)
    return softmax(logits * sharpness, axis=1), np.minimum(labels, classes - 1)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_a_network_is_too_sure_of(sharpness):
    probabilities, labels = drawn(20_000, sharpness=sharpness)
    calibration = fit_calibration(probabilities, labels, bias=False)
    assert calibration.temperature == pytest.approx(sharpness, rel=0.05)
    assert calibration.bias == (0, 0, 0)
    calibrated = calibration(probabilities)
    assert calibrated.sum(axis=1) == pytest.approx(1)
    assert (calibrated.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert log_loss(labels, calibrated) <= log_loss(labels, probabilities) + 1e-6


def test_the_bias_undoes_a_balance_of_classes():
    shares = [0.8, 0.15, 0.05]
    natural, labels = drawn(20_000, shares=shares)
    # What a network that was trained on as many images of each class would say.
    balanced = softmax(np.log(natural) - np.log(shares), axis=1)
    calibration = fit_calibration(balanced, labels, bias=True)
    assert calibration(balanced) == pytest.approx(natural, abs=0.02)
    assert calibration(balanced).mean(axis=0) == pytest.approx(np.bincount(labels) / len(labels), abs=0.005)


def test_a_class_without_an_image_stays_possible():
    probabilities, labels = drawn(300)
    keep = labels != 2
    calibration = fit_calibration(probabilities[keep], labels[keep], bias=True)
    assert calibration(probabilities).min() > 0


def test_a_probability_of_zero_is_a_number_still():
    assert np.isfinite(Calibration(2.0, (0.0, 0.0))(np.array([[1.0, 0.0]], np.float32))).all()


@pytest.mark.parametrize(("count", "share", "misses"), [(29, 0.9, 0), (46, 0.9, 1), (45, 0.9, 0), (59, 0.95, 0)])
def test_the_certain_threshold_misses_as_many_as_tables_of_tolerance_limits_allow(count, share, misses):
    probabilities = np.random.default_rng(0).permutation(np.arange(1, count + 1) / 100)
    threshold = certain_threshold(probabilities, share, 0.95)
    assert (probabilities < threshold.probability).sum() == misses
    assert threshold.guaranteed == share


def test_too_few_images_guarantee_less():
    threshold = certain_threshold(np.array([0.3, 0.2, 0.4]), 0.9, 0.95)
    assert threshold.probability == 0.2
    # Were the share of misses any higher, all three would have been found in fewer than 5 of 100 sets.
    assert threshold.guaranteed == pytest.approx(0.05 ** (1 / 3))
    assert covering_threshold(np.array([0.3, 0.2, 0.4]), 0.9).guaranteed == 0.75


def test_without_an_image_nothing_is_said_or_promised():
    for threshold in (certain_threshold(np.empty(0), 0.9, 0.95), covering_threshold(np.empty(0), 0.9)):
        assert threshold.probability > 1
        assert threshold.guaranteed == threshold.groups == 0


def test_classes_that_nobody_has_seen_refer_no_image():
    label_set, rng = LABEL_SETS["kaggle9"], np.random.default_rng(0)
    seen = [label_set.classes.index(name) for name in ("melanoma", "nevus")]
    labels = np.array(seen)[np.arange(400) % 2]
    probabilities = np.full((400, 9), 1e-3)
    probabilities[np.arange(400), labels] = rng.uniform(0.9, 1, 400)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    features = rng.normal(size=(400, 5))
    decisions = fit_decisions(probabilities, features, labels, np.arange(400), label_set, DecisionConfig())
    decided = decisions(probabilities, features)
    assert decided.refer.mean() < 0.2
    assert not decided.prediction_set[:, [k for k in range(9) if k not in seen]].any()
    # Named all the same, such a class is left to a dermatologist.
    other = np.roll(probabilities, 2, axis=1)
    assert decisions(other, features).refer.all()


@pytest.mark.parametrize("count", [40, 200])
def test_the_certain_threshold_holds_in_all_but_one_of_twenty_validation_sets(count):
    rng = np.random.default_rng(1)
    reached = [1 - certain_threshold(rng.random(count), 0.9, 0.95).probability for _ in range(4000)]
    assert np.mean(np.array(reached) >= 0.9) > 0.94
    # And is not lower than it has to be.
    threshold = certain_threshold(np.arange(count) / count, 0.9, 0.95)
    missed = round(threshold.probability * count) + 1
    assert beta.cdf(0.1, missed + 1, count - missed) < 0.95


@pytest.mark.parametrize("count", [9, 12, 100])
def test_the_covering_threshold_covers_in_the_mean(count):
    rng = np.random.default_rng(1)
    covered = np.mean([1 - covering_threshold(rng.random(count), 0.9).probability for _ in range(10_000)])
    assert 0.9 - 0.005 < covered < 0.9 + 1 / (count + 1) + 0.005


def test_each_group_counts_once():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    chosen = one_of_each(groups)
    assert sorted(groups[chosen]) == ["a", "b", "c"]
    assert chosen.tolist() == one_of_each(groups).tolist()


def test_what_lies_elsewhere_is_strange():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(20, 50))
    known, new, other = (rng.normal(size=(500, 20)) @ mixing for _ in range(3))
    novelty = fit_novelty(known, np.arange(500))
    usual, strange = novelty(new), novelty(other + 4 * rng.normal(size=50))
    assert (usual > 1).mean() < 0.05
    assert roc_auc_score(np.repeat([0, 1], 500), np.concatenate([usual, strange])) > 0.99


@pytest.mark.parametrize(("images", "share"), [(60, 1 / 31), (300, 0.01)])
def test_of_images_like_those_that_are_known_few_are_strange(images, share):
    """At most one in a hundred, or where that half of them which is measured has fewer, one more than these."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(20, 50))

    def draw(number):
        return rng.normal(size=(number, 20)) @ mixing

    strange = [fit_novelty(draw(images), np.arange(images))(draw(2000)) > 1 for _ in range(40)]
    assert np.mean(strange) < 1.3 * share


@pytest.mark.parametrize("images", [1, 2, 3, 9])
def test_few_images_or_features_that_never_vary_give_numbers(images):
    features = np.ones((images, 4))
    features[:, 0] = np.arange(images)
    assert np.isfinite(fit_novelty(features, np.arange(images))(np.zeros((2, 4)))).all()


def test_novelty_is_the_same_when_read_back():
    features = np.random.default_rng(0).normal(size=(100, 6))
    novelty = fit_novelty(features, np.arange(100))
    arrays = {name: values.astype(np.float32) for name, values in novelty.arrays().items()}
    assert Novelty.from_arrays(arrays)(features) == pytest.approx(novelty(features), rel=1e-6)


def fitted(label_set=THREE, images=600, **config):
    probabilities, labels = drawn(images, len(label_set.classes), sharpness=2.0)
    features = np.random.default_rng(3).normal(size=(images, 8))
    settings = DecisionConfig(**config)
    decisions = fit_decisions(probabilities, features, labels, np.arange(images) // 2, label_set, settings)
    return decisions, probabilities, features, labels


def test_decisions_are_the_same_when_read_back():
    decisions, probabilities, features, _ = fitted(calibration="bias_corrected", label="balanced")
    values = json.loads(json.dumps(decisions.to_dict(), allow_nan=False))
    again = Decisions.from_dict(values, decisions.novelty)
    assert again == decisions
    for name, value in vars(decisions(probabilities, features)).items():
        assert (getattr(again(probabilities, features), name) == value).all()


def test_what_follows_from_a_probability():
    decisions, probabilities, features, labels = fitted()
    decided = decisions(probabilities, features)
    melanoma = decided.probabilities[:, 1]
    assert (decided.label == probabilities.argmax(axis=1)).all()
    assert (decided.alert == (melanoma >= np.float32(decisions.alert.probability))).all()
    assert decided.alert[labels == 1].mean() >= 0.9
    for k, threshold in enumerate(decisions.sets):
        assert (
            decided.prediction_set[:, k] == (decided.probabilities[:, k] >= np.float32(threshold.probability))
        ).all()
        assert decided.prediction_set[labels == k, k].mean() > 0.85
    decisive = (decided.prediction_set.sum(axis=1) == 1) & decided.prediction_set[np.arange(600), decided.label]
    assert (decided.refer == (~decisive | (decided.ood_score > 1))).all()
    assert 0 < decided.refer.mean() < 1


def test_a_balanced_label_makes_as_much_of_a_rare_class():
    shares = [0.9, 0.07, 0.03]
    probabilities, labels = drawn(5000, shares=shares)
    features = np.zeros((5000, 2))

    def recall(label):
        settings = DecisionConfig(label=label, calibration="bias_corrected")
        decisions = fit_decisions(probabilities, features, labels, np.arange(5000), THREE, settings)
        answers = decisions(probabilities, features).label
        return [(answers[labels == k] == k).mean() for k in range(3)]

    assert np.mean(recall("balanced")) > np.mean(recall("most_probable")) + 0.1
    assert weighted(np.array([[0.8, 0.2]]), (1.0, 4.0)) == pytest.approx(np.array([[0.5, 0.5]]))


def test_a_model_that_knows_no_melanoma_gives_no_alert():
    decisions, probabilities, features, _ = fitted(NO_MELANOMA)
    assert decisions(probabilities, features).alert is None


def test_without_a_melanoma_to_fit_it_on_there_is_no_alert():
    probabilities, _ = drawn(50)
    labels = np.zeros(50, int)
    settings = DecisionConfig(label="balanced", calibration="bias_corrected")
    decisions = fit_decisions(probabilities, np.ones((50, 2)), labels, np.arange(50), THREE, settings)
    assert decisions.alert is None
    # It is never ruled out, as a class is of which less harm comes; and it is not named sooner for that.
    decided = decisions(probabilities, np.ones((50, 2)))
    assert decided.prediction_set[:, THREE.classes.index("melanoma")].all()
    assert not decided.prediction_set[:, THREE.classes.index("wart")].any()
    assert decided.refer.all()
    assert decisions.label_weights == (1, 1, 1)


def test_a_balanced_label_wants_probabilities_that_know_what_is_common():
    with pytest.raises(ValueError, match="label=balanced needs calibration=bias_corrected"):
        DecisionConfig(label="balanced")


def test_an_answer_that_its_own_set_does_not_hold_is_referred():
    decisions, *_ = fitted()
    sets = tuple(Threshold(probability, 0.9, 10) for probability in (0.7, 0.2, 0.9))
    odd = replace(decisions, sets=sets, calibration=Calibration(1.0, (0.0, 0.0, 0.0)))
    decided = odd(np.array([[0.6, 0.3, 0.1], [0.75, 0.15, 0.1]]), np.zeros((2, 8)))
    assert decided.prediction_set.tolist() == [[False, True, False], [True, False, False]]
    assert decided.refer.tolist() == [True, False]


def test_no_image_is_no_problem(decisions_of):
    label_set = LABEL_SETS["isic2018"]
    decided = decisions_of(label_set)(np.empty((0, len(label_set.classes)), np.float32), np.empty((0, 5), np.float32))
    assert decided.refer.shape == (0,)
