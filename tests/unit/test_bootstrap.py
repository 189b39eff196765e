"""Intervals: the same figures as scikit-learn's for any weights, and the promised share of truths inside."""

import json

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from dermaray.evaluation.bootstrap import bootstrap_intervals, share_interval
from dermaray.evaluation.metrics import compute_metrics
from dermaray.evaluation.weighted import Figures
from dermaray.labels import LABEL_SETS, LabelSet

THREE = LabelSet("custom", ("melanoma", "nevus", "other"), frozenset({"melanoma"}), "melanoma")
SEVEN = LABEL_SETS["isic2018"]


def random_case(label_set, images=300, seed=0, decimals=2):
    """Predictions with many equal probabilities."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(label_set.classes), images)
    logits = rng.normal(size=(images, len(label_set.classes)))
    logits[np.arange(images), labels] += 1
    probabilities = np.exp(logits)
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).round(decimals)
    return probabilities, labels


def partial_auc_of_isic(is_class, scores, min_tpr, weights=None):
    """The challenge's own way: classes and scores turned round, then scikit-learn's standardisation undone."""
    max_fpr = 1 - min_tpr
    scaled = roc_auc_score(~is_class, -scores, max_fpr=max_fpr, sample_weight=weights)
    lowest = max_fpr**2 / 2
    return lowest + (max_fpr - lowest) * (2 * scaled - 1)


def flat(tree, name=""):
    if not isinstance(tree, dict):
        return {name: tree}
    return {key: value for k, v in tree.items() for key, value in flat(v, f"{name}/{k}").items()}


@pytest.mark.parametrize("label_set", [THREE, SEVEN])
@pytest.mark.parametrize("min_tpr", [0.0, 0.8])
def test_unweighted_figures_are_those_that_are_reported(label_set, min_tpr):
    probabilities, labels = random_case(label_set)
    reported = flat(compute_metrics(probabilities, labels, label_set, min_tpr))
    figures = flat(
        Figures(probabilities, labels, label_set, min_tpr, probabilities.argmax(axis=1))(np.ones((1, len(labels))))
    )
    assert {name: float(value[0]) for name, value in figures.items()} == pytest.approx(
        {name: reported[name] for name in figures}
    )


def test_weighted_figures_agree_with_scikit_learn():
    probabilities, labels = random_case(SEVEN)
    weights = np.random.default_rng(1).poisson(1, (3, len(labels))).astype(float)
    predicted, classes = probabilities.argmax(axis=1), np.arange(7)
    figures = Figures(probabilities, labels, SEVEN, 0.8, predicted)(weights)
    for i, w in enumerate(weights):
        keep = {"sample_weight": w}
        is_melanoma, scores = labels == SEVEN.melanoma_index, probabilities[:, SEVEN.melanoma_index]
        aucs = [roc_auc_score(labels == k, probabilities[:, k], **keep) for k in classes]
        fpr, tpr, _ = roc_curve(is_melanoma, scores, drop_intermediate=False, **keep)
        one_hot = np.eye(7)[labels]
        expected = {
            "accuracy": accuracy_score(labels, predicted, **keep),
            "balanced_accuracy": balanced_accuracy_score(labels, predicted, **keep),
            "macro_auc": np.mean(aucs),
            "brier": ((probabilities - one_hot) ** 2).sum(axis=1) @ w / w.sum(),
            "melanoma_auc": aucs[SEVEN.melanoma_index],
            "melanoma_partial_auc": partial_auc_of_isic(is_melanoma, scores, 0.8, w),
        }
        assert {name: figures[name][i] for name in expected} == pytest.approx(expected)
        for s, sensitivities in figures["melanoma_sensitivity_at_specificity"].items():
            assert sensitivities[i] == pytest.approx(tpr[fpr <= 1 - float(s) + 1e-9].max())
        for k, row in enumerate(figures["per_class"].values()):
            assert {name: values[i] for name, values in row.items()} == pytest.approx(
                {
                    "recall": recall_score(labels == k, predicted == k, **keep),
                    "specificity": recall_score(labels != k, predicted != k, **keep),
                    "precision": precision_score(labels == k, predicted == k, **keep),
                    "auc": aucs[k],
                    "average_precision": average_precision_score(labels == k, probabilities[:, k], **keep),
                }
            )


def test_the_expected_calibration_error_of_a_weighting_is_that_of_repeated_images():
    probabilities, labels = random_case(THREE, images=60)
    weights = np.random.default_rng(2).poisson(1, len(labels))
    repeated = compute_metrics(probabilities.repeat(weights, axis=0), labels.repeat(weights), THREE)
    figures = Figures(probabilities, labels, THREE, 0.8, probabilities.argmax(axis=1))(weights[None].astype(float))
    assert figures["ece"][0] == pytest.approx(repeated["ece"])


def test_the_brier_score_is_scikit_learns():
    probabilities, labels = random_case(SEVEN, decimals=12)
    assert compute_metrics(probabilities, labels, SEVEN)["brier"] == pytest.approx(
        brier_score_loss(labels, probabilities, labels=range(7))
    )


@pytest.mark.parametrize("min_tpr", [0.0, 0.5, 0.8, 0.95])
def test_the_partial_auc_is_that_of_the_challenge(min_tpr):
    probabilities, labels = random_case(THREE, images=90)
    metrics = compute_metrics(probabilities, labels, THREE, min_tpr)
    expected = partial_auc_of_isic(labels == 0, probabilities[:, 0], min_tpr) if min_tpr else metrics["melanoma_auc"]
    assert metrics["melanoma_partial_auc"] == pytest.approx(expected)
    assert metrics["min_tpr"] == min_tpr


def test_what_the_images_do_not_define_has_no_interval():
    probabilities, labels = random_case(LabelSet("custom", ("a", "b", "c")), images=40)
    intervals = bootstrap_intervals(
        probabilities, labels % 2, np.arange(40), LabelSet("custom", ("a", "b", "c")), resamples=50
    )
    assert intervals["melanoma_auc"] is None
    assert intervals["per_class"]["c"]["recall"] is None
    assert intervals["per_class"]["a"]["recall"] is not None
    assert json.loads(json.dumps(intervals, allow_nan=False)) == intervals


def test_intervals_follow_from_the_seed():
    probabilities, labels = random_case(THREE, images=50)
    first, second, other = (
        bootstrap_intervals(probabilities, labels, np.arange(50), THREE, resamples=40, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_a_group_of_several_classes_counts_for_its_rarest():
    # Melanomas are all of patients who have a nevus as well; in whatever order.
    labels = np.array([1] * 30 + [0, 1] * 5)
    groups = np.r_[np.arange(30), np.repeat(np.arange(30, 35), 2)]
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 40)
    order = np.random.default_rng(1).permutation(40)
    straight = bootstrap_intervals(probabilities, labels, groups, THREE, resamples=99)
    shuffled = bootstrap_intervals(probabilities[order], labels[order], groups[order], THREE, resamples=99)
    assert flat(straight) == {
        name: pytest.approx(value) if value is not None else None for name, value in flat(shuffled).items()
    }
    low, high = straight["balanced_accuracy"]
    recalls = [compute_metrics(probabilities, labels, THREE)["per_class"][name]["recall"] for name in THREE.classes[:2]]
    assert low < np.mean(recalls) < high


def test_a_mean_over_a_class_of_few_has_no_interval():
    """Four melanomas count as much as a hundred nevi, and tell too little; five may do."""
    for melanomas, has in ((4, False), (5, True)):
        labels = np.array([1] * 100 + [0] * melanomas)
        probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], len(labels))
        found = bootstrap_intervals(probabilities, labels, np.arange(len(labels)), THREE, resamples=99)
        assert (found["balanced_accuracy"] is not None) == (found["macro_auc"] is not None) == has
        assert found["accuracy"] is not None


@pytest.mark.parametrize(("melanomas", "told"), [(9, False), (10, True), (291, False)])
def test_what_ranks_a_class_of_few_has_no_interval(melanomas, told):
    probabilities, _ = random_case(THREE, decimals=6)
    labels = np.where(np.arange(300) < melanomas, 0, np.arange(300) % 2 + 1)
    found = bootstrap_intervals(probabilities, labels, np.arange(300), THREE, resamples=200)
    row = found["per_class"]["melanoma"]
    sensitivities = found["melanoma_sensitivity_at_specificity"].values()
    ranks = [found["melanoma_auc"], found["melanoma_partial_auc"], row["auc"], row["average_precision"], *sensitivities]
    assert [interval is not None for interval in ranks] == [told] * 7
    assert found["accuracy"] is not None


def test_groups_of_a_class_count_whatever_else_they_show():
    """Nevi of three patients, each of whom has a melanoma as well, are as few as nevi of three without."""
    labels = np.r_[np.zeros(6, int), np.ones(30, int)]
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 36)
    few = bootstrap_intervals(probabilities, labels, np.r_[np.arange(6), np.arange(30) % 3], THREE, resamples=99)
    many = bootstrap_intervals(probabilities, labels, np.r_[np.arange(6), np.arange(30) % 6], THREE, resamples=99)
    assert few["balanced_accuracy"] is None
    assert many["balanced_accuracy"] is not None


def test_a_share_of_all_or_of_none_has_the_exact_interval():
    """Two classes of 12 and 28 images, two of each lesion, all of them answered with the second."""
    labels = np.repeat([0, 1], [12, 28])
    groups = np.arange(40) // 2
    found = bootstrap_intervals(np.tile([0.2, 0.8, 0.0], (40, 1)), labels, groups, THREE, resamples=50)["per_class"]
    names = THREE.classes
    none, every = binomtest(0, 6).proportion_ci(), binomtest(14, 14).proportion_ci()
    assert found[names[0]]["recall"] == pytest.approx([none.low, none.high])
    assert found[names[1]]["recall"] == pytest.approx([every.low, every.high])
    assert 0 < found[names[1]]["precision"][0] < found[names[1]]["precision"][1] < 1
    assert found[names[2]]["recall"] is None
    assert found[names[2]]["precision"] is None
    assert found[names[2]]["specificity"] == pytest.approx([0.025 ** (1 / 20), 1])


def test_one_miss_does_not_promise_more_than_none():
    groups = np.arange(88)
    bounds = [share_interval([0.0, 0.01], missed / 88, groups)[1] for missed in range(10)]
    assert bounds == sorted(bounds)
    assert bounds[1] == pytest.approx(binomtest(1, 88).proportion_ci().high)
    assert share_interval([0.0, 0.01], 10 / 88, groups) == [0.0, 0.01]
    assert share_interval([0.0, 0.9], 1 / 88, groups)[1] == 0.9
    assert share_interval(None, float("nan"), groups) is None


def test_intervals_of_what_is_rarely_missed_hold_the_truth():
    """Of 60 lesions, of which four in a hundred are missed, by every number of misses that may be."""
    held = 0.0
    for missed in range(12):
        right = np.arange(60) >= missed
        labels, answered = np.zeros(120, int), np.r_[np.where(right, 0, 1), np.zeros(60, int)]
        labels[60:] = 1
        found = bootstrap_intervals(np.eye(3)[answered], labels, np.arange(120), THREE, resamples=200)
        low, high = found["per_class"][THREE.classes[0]]["recall"]
        held += binom.pmf(missed, 60, 0.04) * (low <= 0.96 <= high)
    assert held > 0.95


def test_a_figure_that_nearly_all_resamples_share_has_no_interval():
    """Ten of a hundred images score above every melanoma, and next to none of their resamples has twenty of these."""
    labels = np.array([0] * 10 + [1] * 100)
    melanoma = np.r_[np.full(10, 0.8), np.full(10, 0.9), np.full(90, 0.1)]
    probabilities = np.column_stack([melanoma, 1 - melanoma, np.zeros(110)])
    found = bootstrap_intervals(probabilities, labels, np.arange(110), THREE)
    assert found["melanoma_sensitivity_at_specificity"]["0.8"] is None


def drawn_with(rng, images, sharpness):
    """Draw images of two classes whose answers are right as often as they say at 1, and less often below."""
    probability = rng.uniform(size=images)
    truth = 1 / (1 + ((1 - probability) / probability) ** sharpness)
    labels = (rng.uniform(size=images) < truth).astype(int)
    return np.column_stack([1 - probability, probability]), labels


@pytest.mark.parametrize(("sharpness", "truth"), [(1.0, 0.0), (0.8, 0.033)])
def test_the_interval_of_the_calibration_error_holds_the_truth(sharpness, truth):
    """Of a calibrated model the error is chance alone, and larger still in its resamples."""
    rng = np.random.default_rng(4)
    hits = []
    for _ in range(60):
        probabilities, labels = drawn_with(rng, 400, sharpness)
        low, high = bootstrap_intervals(probabilities, labels, np.arange(400), TWO, resamples=100)["ece"]
        assert low <= compute_metrics(probabilities, labels, TWO)["ece"] <= high
        hits.append(low <= truth <= high)
    assert np.mean(hits) >= 0.85


def coverage(figure, truth, draw, rounds=120):
    """Return how many of all intervals hold the truth, by group and with images drawn one by one."""
    hits = np.zeros(2)
    for _ in range(rounds):
        probabilities, labels, groups, label_set = draw()
        for i, by in enumerate((groups, np.arange(len(labels)))):
            low, high = bootstrap_intervals(probabilities, labels, by, label_set, resamples=200)[figure]
            hits[i] += low <= truth <= high
    return hits / rounds


def test_95_of_100_intervals_hold_the_truth():
    """Lesions of three images each that are alike; images drawn one by one would promise far too much."""
    rng = np.random.default_rng(3)

    def draw():
        truth = rng.integers(0, 2, 60).repeat(3)
        # What a lesion looks like decides; the images of one differ little.
        evidence = rng.normal(size=60).repeat(3) + 0.2 * rng.normal(size=180)
        probability = 1 / (1 + np.exp(-(evidence + 2 * truth - 1)))
        return np.column_stack([1 - probability, probability]), truth, np.arange(60).repeat(3), TWO

    # Of two normal distributions 2 apart, with that variance: how often one exceeds the other.
    by_lesion, by_image = coverage("melanoma_auc", norm.cdf(2 / np.sqrt(2 * 1.04)), draw)
    assert 0.90 <= by_lesion <= 0.99
    assert by_image < 0.88


def test_the_mix_of_classes_is_no_given():
    """Where a common class is recognised far better than the others, accuracy hangs on how common it is."""
    rng = np.random.default_rng(5)

    def draw():
        truth = rng.choice(3, p=[0.2, 0.7, 0.1], size=200)
        right = rng.uniform(size=200) < np.array([0.4, 0.95, 0.4])[truth]
        return np.eye(3)[np.where(right, truth, (truth + 1) % 3)], truth, np.arange(200), THREE

    assert 0.90 <= coverage("accuracy", 0.2 * 0.4 + 0.7 * 0.95 + 0.1 * 0.4, draw)[0] <= 0.99


TWO = LabelSet("custom", ("nevus", "melanoma"), frozenset({"melanoma"}), "melanoma")
