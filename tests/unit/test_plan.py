import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from dermaray.config import Balance, PerClass, RunConfig
from dermaray.data.manifest import SCHEMA, Manifest
from dermaray.errors import ConfigError, DataError
from dermaray.labels import LabelSet
from dermaray.training.plan import Plan, training_plan, validation_plan, weigh_classes

COLUMNS = ("row", "epoch", "draw", "weight")
LABELS = [0] * 30 + [1] * 8 + [2] * 3
CLASSES = ("nevus", "melanoma", "wart", "scar")
EVERY_BALANCE: list[Balance] = ["none", "equal", "sqrt", PerClass(n_per_class=11)]

some_labels = st.lists(st.integers(0, 3), min_size=1, max_size=80)
labels_and_batch = some_labels.flatmap(lambda labels: st.tuples(st.just(labels), st.integers(1, len(labels))))
balances = st.sampled_from(["none", "equal", "sqrt"]) | st.builds(PerClass, n_per_class=st.integers(1, 40))
seeds = st.integers(0, 1000)


def epoch_rows(labels: list[int], balance: Balance) -> int:
    return balance.n_per_class * len(set(labels)) if isinstance(balance, PerClass) else len(labels)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], int, Balance]:
    """Labels, a batch that an epoch has rows for, and a balance."""
    labels, balance = draw(some_labels), draw(balances)
    return labels, draw(st.integers(1, epoch_rows(labels, balance))), balance


def reassembled(plan: Plan, workers: int, column: str) -> list[list[float]]:
    """Return every global batch as the workers see it together, step by step."""
    shards = [plan.shard(rank, workers)[column].to_numpy().reshape(plan.steps, -1) for rank in range(workers)]
    return np.concatenate(shards, axis=1).tolist()


def epochs_of(plan: Plan) -> list[list[int]]:
    return [plan.row[plan.epoch == epoch].tolist() for epoch in range(plan.epoch.max() + 1)]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("column", COLUMNS)
def test_workers_together_see_what_one_sees(workers: int, column: str) -> None:
    plans = [weigh_classes(training_plan(LABELS, 3, 12, b, seed=1), LABELS, "sqrt", CLASSES) for b in EVERY_BALANCE]
    for plan in (*plans, validation_plan(41, 12)):
        assert reassembled(plan, workers, column) == getattr(plan, column).reshape(plan.steps, 12).tolist()


@settings(max_examples=60, deadline=None)
@given(case=cases(), workers=st.integers(1, 4), seed=seeds)
def test_the_plan_does_not_depend_on_the_workers(case: tuple[list[int], int, Balance], workers: int, seed: int) -> None:
    labels, batch, balance = case
    batch = max(batch // workers, 1) * workers
    if batch > epoch_rows(labels, balance):
        return
    plan = weigh_classes(training_plan(labels, 2, batch, balance, seed), labels, "balanced", CLASSES)
    for column in COLUMNS:
        assert reassembled(plan, workers, column) == getattr(plan, column).reshape(plan.steps, batch).tolist()


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_workers_take_equally_many_rows(workers: int) -> None:
    plan = training_plan(LABELS, 2, 12, "none", seed=0)
    assert plan.steps == 2 * (len(LABELS) // 12)
    assert {plan.shard(rank, workers).num_rows for rank in range(workers)} == {plan.steps * 12 // workers}


@settings(max_examples=60, deadline=None)
@given(case=labels_and_batch, epochs=st.integers(1, 3), seed=seeds)
def test_none_visits_an_image_at_most_once_an_epoch(case: tuple[list[int], int], epochs: int, seed: int) -> None:
    labels, batch = case
    plan = training_plan(labels, epochs, batch, "none", seed)
    whole = len(labels) // batch * batch
    assert [len(rows) for rows in epochs_of(plan)] == [whole] * epochs
    assert all(len(set(rows)) == whole and set(rows) <= set(range(len(labels))) for rows in epochs_of(plan))
    assert not plan.draw.any()
    assert (plan.weight == 1).all()


def wanted_shares(labels: list[int], size: int, balance: Balance) -> dict[int, float]:
    """Return the rows that each class should have in an epoch, before they are made whole."""
    counts = Counter(labels)
    parts = {label: math.sqrt(count) if balance == "sqrt" else 1.0 for label, count in counts.items()}
    return {label: size * part / sum(parts.values()) for label, part in parts.items()}


@settings(max_examples=150, deadline=None)
@given(case=cases(), epochs=st.integers(1, 3), seed=seeds)
def test_every_class_has_its_share_of_every_epoch(case: tuple[list[int], int, Balance], epochs: int, seed: int) -> None:
    labels, batch, balance = case
    plan = training_plan(labels, epochs, batch, balance, seed)
    size = epoch_rows(labels, balance) // batch * batch
    assert [len(rows) for rows in epochs_of(plan)] == [size] * epochs
    if balance == "none":
        return
    for rows in epochs_of(plan):
        counts = Counter(labels[row] for row in rows)
        for label, share in wanted_shares(labels, size, balance).items():
            assert math.floor(share + 1e-9) <= counts[label] <= math.ceil(share - 1e-9)


@settings(max_examples=60, deadline=None)
@given(labels=some_labels, n=st.integers(1, 40), epochs=st.integers(1, 3), seed=seeds)
def test_n_per_class_draws_just_so_many_of_each(labels: list[int], n: int, epochs: int, seed: int) -> None:
    plan = training_plan(labels, epochs, 1, PerClass(n_per_class=n), seed)
    for rows in epochs_of(plan):
        assert Counter(labels[row] for row in rows) == dict.fromkeys(labels, n)


def test_sqrt_lies_between_the_data_and_equal() -> None:
    # Roots 3, 2 and 1 of 6, over 14 images: 7, 4.67 and 2.33 rows.
    (rows,) = epochs_of(training_plan([0] * 9 + [1] * 4 + [2], 1, 14, "sqrt", seed=0))
    assert sorted(Counter(0 if row < 9 else 1 if row < 13 else 2 for row in rows).items()) == [(0, 7), (1, 5), (2, 2)]


@settings(max_examples=150, deadline=None)
@given(case=cases(), seed=seeds)
def test_no_image_is_repeated_before_its_class_is_through(case: tuple[list[int], int, Balance], seed: int) -> None:
    labels, batch, balance = case
    for rows in epochs_of(training_plan(labels, 2, batch, balance, seed)):
        times = Counter(rows)
        for label in set(labels):
            of_class = [times[row] for row, other in enumerate(labels) if other == label]
            assert max(of_class) - min(of_class) <= 1


def test_of_a_class_with_more_images_every_epoch_draws_another_subset() -> None:
    plan = training_plan(LABELS, 12, 1, PerClass(n_per_class=5), seed=0)
    subsets = [frozenset(row for row in rows if row < 30) for rows in epochs_of(plan)]
    assert {len(subset) for subset in subsets} == {5}
    assert len(set(subsets)) == 12
    assert len(frozenset.union(*subsets)) > 20


@settings(max_examples=100, deadline=None)
@given(case=cases(), seed=seeds)
def test_every_visit_is_distinct(case: tuple[list[int], int, Balance], seed: int) -> None:
    plan = training_plan(case[0], 3, case[1], case[2], seed)
    # Numbered 0, 1, 2, ... in the order in which they come.
    seen: Counter[tuple[int, int]] = Counter()
    for row, epoch, draw in zip(plan.row.tolist(), plan.epoch.tolist(), plan.draw.tolist(), strict=True):
        assert draw == seen[row, epoch]
        seen[row, epoch] += 1


BY_NAME = {"nevus": 1.0, "melanoma": 4.0, "wart": 0.5, "scar": 2.5}
class_weights = st.sampled_from(["balanced", "sqrt", BY_NAME])


@settings(max_examples=100, deadline=None)
@given(case=cases(), given_weights=class_weights, seed=seeds)
def test_the_mean_weight_of_every_epoch_is_one(
    case: tuple[list[int], int, Balance], given_weights: object, seed: int
) -> None:
    labels, batch, balance = case
    plan = weigh_classes(training_plan(labels, 3, batch, balance, seed), labels, given_weights, CLASSES)
    assert plan.weight.dtype == np.float32
    assert (plan.weight > 0).all()
    for epoch in range(3):
        assert plan.weight[plan.epoch == epoch].mean() == pytest.approx(1, abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(case=cases(), root=st.booleans(), seed=seeds)
def test_balanced_weights_are_those_of_scikit_learn(
    case: tuple[list[int], int, Balance], root: bool, seed: int
) -> None:
    labels, batch, balance = case
    plan = weigh_classes(
        training_plan(labels, 2, batch, balance, seed), labels, "sqrt" if root else "balanced", CLASSES
    )
    for epoch in range(2):
        shown = np.asarray(labels)[plan.row[plan.epoch == epoch]]
        classes = np.unique(shown)
        reference = dict(zip(classes, compute_class_weight("balanced", classes=classes, y=shown), strict=True))
        expected = np.array([reference[label] for label in shown])
        expected = np.sqrt(expected) / np.sqrt(expected).mean() if root else expected
        np.testing.assert_allclose(plan.weight[plan.epoch == epoch], expected, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(case=cases(), seed=seeds)
def test_weights_by_name_keep_their_proportions(case: tuple[list[int], int, Balance], seed: int) -> None:
    labels, batch, balance = case
    plan = weigh_classes(training_plan(labels, 1, batch, balance, seed), labels, BY_NAME, CLASSES)
    named = np.array([BY_NAME[CLASSES[labels[row]]] for row in plan.row])
    np.testing.assert_allclose(plan.weight / plan.weight[0], named / named[0], rtol=1e-5)


def test_a_balanced_plan_needs_no_weights() -> None:
    plan = training_plan(LABELS, 2, 12, PerClass(n_per_class=12), seed=0)
    np.testing.assert_allclose(weigh_classes(plan, LABELS, "balanced", CLASSES).weight, 1)


def test_without_class_weights_every_row_counts_one() -> None:
    plan = training_plan(LABELS, 2, 12, "none", seed=0)
    assert (weigh_classes(plan, LABELS, "none", CLASSES).weight == 1).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({**BY_NAME, "mole": 1.0}, "'mole' is no class"),
        ({"nevus": 1.0, "melanoma": 2.0, "wart": 1.0}, "'scar' has no weight"),
        ({}, "'nevus' has no weight"),
    ],
)
def test_weights_that_do_not_name_the_classes(weights: dict[str, float], message: str) -> None:
    plan = training_plan(LABELS, 1, 12, "none", seed=0)
    with pytest.raises(ConfigError, match=f"class_weights: {message}.*each of: nevus, melanoma, wart, scar"):
        weigh_classes(plan, LABELS, weights, CLASSES)


@settings(max_examples=60, deadline=None)
@given(images=st.integers(1, 100), batch=st.integers(1, 40))
def test_validation_visits_every_image_once_and_fills_with_weight_zero(images: int, batch: int) -> None:
    plan = validation_plan(images, batch)
    assert plan.steps == -(-images // batch)
    assert plan.row[plan.weight == 1].tolist() == list(range(images))
    assert plan.weight[images:].sum() == 0
    assert len(plan.row) == plan.steps * batch
    assert plan.row.max() < images


@pytest.mark.parametrize("balance", EVERY_BALANCE, ids=str)
def test_the_seed_decides_the_order_and_every_epoch_has_its_own(balance: Balance) -> None:
    first, again, other = (training_plan(LABELS, 3, 8, balance, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.row, again.row)
    assert not np.array_equal(first.row, other.row)
    assert len({tuple(rows) for rows in epochs_of(first)}) == 3


def test_what_one_epoch_leaves_out_another_visits() -> None:
    plan = training_plan(LABELS, 20, 12, "none", seed=0)
    assert set(plan.row.tolist()) == set(range(len(LABELS)))


@pytest.mark.parametrize("labels", [LABELS, []])
def test_a_batch_larger_than_the_data_set(labels: list[int]) -> None:
    message = rf"at most the number of training images, {len(labels)}. Received: {len(labels) + 1}"
    with pytest.raises(ConfigError, match=message):
        training_plan(labels, 1, len(labels) + 1, "none", seed=0)


def test_a_batch_larger_than_an_epoch() -> None:
    message = r"at most the rows of an epoch \(2 of each of 3 classes\), 6. Received: 7"
    with pytest.raises(ConfigError, match=message):
        training_plan(LABELS, 1, 7, PerClass(n_per_class=2), seed=0)


def test_columns_are_as_narrow_as_the_stream_expects() -> None:
    shard = weigh_classes(training_plan(LABELS, 1, 4, "equal", seed=0), LABELS, "balanced", CLASSES).shard(0, 2)
    assert {name: str(shard.schema.field(name).type) for name in COLUMNS} == {
        "row": "int32",
        "epoch": "int32",
        "draw": "int32",
        "weight": "float",
    }


def manifest_of(splits: list[str], folds: list[int | None]) -> Manifest:
    filled: dict[str, Any] = {"uri": "a.jpg", "group_id": "g", "sha256": "0" * 64, "width": 8, "height": 8}
    labels = [CLASSES[:2][i % 3 == 0] for i in range(len(splits))]
    rows = [
        {**filled, "image_id": f"i{i}", "label": label, "split": split, "fold": fold}
        for i, (label, split, fold) in enumerate(zip(labels, splits, folds, strict=True))
    ]
    return Manifest(pa.Table.from_pylist(rows, SCHEMA), LabelSet("two", CLASSES[:2], frozenset(), None))


def run_config(**data: Any) -> RunConfig:
    training = {"epochs": 2, "global_batch_size": 4, "class_weights": "balanced"}
    return RunConfig.model_validate({"name": "t", "out": "t", "data": {"manifest": "m", **data}, "training": training})


HOLDOUT = manifest_of(["train"] * 9 + ["val"] * 3, [None] * 12)
FOLDED = manifest_of(["train"] * 9 + ["test"] * 3, [0, 1, 2] * 3 + [None] * 3)


def test_a_run_validates_on_the_fold_that_it_names() -> None:
    from dermaray.training.task import plan_run

    task = plan_run(run_config(fold=1), FOLDED.for_fold(1), 1.0)
    assert task.val.image_ids.to_pylist() == ["i1", "i4", "i7"]
    assert task.train.image_ids.to_pylist() == ["i0", "i2", "i3", "i5", "i6", "i8"]
    assert task.provenance["data"]["digest"] == FOLDED.fold(1).digest


def test_a_fold_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"data.fold must name the fold to validate on, 0 to 2. Received: null"):
        FOLDED.for_fold(None)
    with pytest.raises(DataError, match="Received: 3"):
        FOLDED.for_fold(3)
    with pytest.raises(DataError, match="no folds"):
        HOLDOUT.for_fold(0)
    assert HOLDOUT.for_fold(None) is HOLDOUT


def test_a_run_weighs_the_training_rows_and_no_others() -> None:
    from dermaray.training.task import plan_run

    task = plan_run(run_config(), HOLDOUT, 1.0)
    assert len(set(task.train_plan.weight.tolist())) > 1
    assert set(task.val_plan.weight.tolist()) == {0.0, 1.0}


def test_what_leaks_is_kept_with_the_model() -> None:
    from dermaray.training.task import plan_run

    assert plan_run(run_config(), HOLDOUT, 1.0).provenance["leaks"] == []
    assert plan_run(run_config(), HOLDOUT, 1.0, leaks=("One lesion.",)).provenance["leaks"] == ["One lesion."]


@pytest.mark.parametrize("head_epochs", [0, 1])
def test_a_call_of_fit_ends_with_its_stage_or_with_the_epoch_that_was_interrupted(head_epochs: int) -> None:
    from dermaray.training.task import plan_run

    training = {"epochs": 3, "head_epochs": head_epochs, "global_batch_size": 4}
    config = RunConfig.model_validate({"name": "t", "out": "t", "data": {"manifest": "m"}, "training": training})
    task = plan_run(config, HOLDOUT, 1.0)
    epoch = task.steps_per_epoch
    assert epoch == 2
    for stage in task.stages:
        for step in range(stage.start, stage.stop):
            expected = stage.stop if step % epoch == 0 else (step // epoch + 1) * epoch
            assert task.stop_after(step) == expected
