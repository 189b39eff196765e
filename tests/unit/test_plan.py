from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaray.errors import ConfigError
from dermaray.training.plan import Plan, training_plan, validation_plan

COLUMNS = ("row", "epoch", "draw", "weight")
LABELS = [0] * 30 + [1] * 8 + [2] * 3

labels_and_batch = st.lists(st.integers(0, 3), min_size=1, max_size=80).flatmap(
    lambda labels: st.tuples(st.just(labels), st.integers(1, len(labels)))
)
seeds = st.integers(0, 1000)


def reassembled(plan: Plan, workers: int, column: str) -> list[list[float]]:
    """Return every global batch as the workers see it together, step by step."""
    shards = [plan.shard(rank, workers)[column].to_numpy().reshape(plan.steps, -1) for rank in range(workers)]
    return np.concatenate(shards, axis=1).tolist()


def epochs_of(plan: Plan) -> list[list[int]]:
    return [plan.row[plan.epoch == epoch].tolist() for epoch in range(plan.epoch.max() + 1)]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("column", COLUMNS)
def test_workers_together_see_what_one_sees(workers: int, column: str) -> None:
    for plan in (training_plan(LABELS, 3, 12, "equal", seed=1), validation_plan(41, 12)):
        assert reassembled(plan, workers, column) == getattr(plan, column).reshape(plan.steps, 12).tolist()


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


def assert_classes_are_equal(labels: list[int], plan: Plan) -> None:
    for rows in epochs_of(plan):
        counts = Counter(labels[row] for row in rows)
        shares = [counts[label] for label in set(labels)]
        assert max(shares) - min(shares) <= 1


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=80), seed=seeds)
def test_equal_draws_every_class_equally_often(labels: list[int], seed: int) -> None:
    assert_classes_are_equal(labels, training_plan(labels, 2, 1, "equal", seed))


@settings(max_examples=60, deadline=None)
@given(case=labels_and_batch, seed=seeds)
def test_equal_holds_too_where_the_batch_does_not_divide_the_images(case: tuple[list[int], int], seed: int) -> None:
    labels, batch = case
    assert_classes_are_equal(labels, training_plan(labels, 2, batch, "equal", seed))


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=80), seed=seeds)
def test_equal_repeats_no_image_before_its_class_is_through(labels: list[int], seed: int) -> None:
    (rows,) = epochs_of(training_plan(labels, 1, 1, "equal", seed))
    times = Counter(rows)
    for label in set(labels):
        of_class = [times[row] for row, other in enumerate(labels) if other == label]
        assert max(of_class) - min(of_class) <= 1


@settings(max_examples=60, deadline=None)
@given(case=labels_and_batch, balance=st.sampled_from(["none", "equal"]), seed=seeds)
def test_every_visit_is_distinct(case: tuple[list[int], int], balance: str, seed: int) -> None:
    plan = training_plan(case[0], 3, case[1], balance, seed)
    visits = list(zip(plan.row.tolist(), plan.epoch.tolist(), plan.draw.tolist(), strict=True))
    assert len(set(visits)) == len(visits)
    # Numbered from 0, in the order in which they come.
    seen: Counter[tuple[int, int]] = Counter()
    for row, epoch, draw in visits:
        assert draw == seen[row, epoch]
        seen[row, epoch] += 1


@settings(max_examples=60, deadline=None)
@given(images=st.integers(1, 100), batch=st.integers(1, 40))
def test_validation_visits_every_image_once_and_fills_with_weight_zero(images: int, batch: int) -> None:
    plan = validation_plan(images, batch)
    assert plan.steps == -(-images // batch)
    assert plan.row[plan.weight == 1].tolist() == list(range(images))
    assert plan.weight[images:].sum() == 0
    assert len(plan.row) == plan.steps * batch
    assert plan.row.max() < images


@pytest.mark.parametrize("balance", ["none", "equal"])
def test_the_seed_decides_the_order_and_every_epoch_has_its_own(balance: str) -> None:
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


def test_columns_are_as_narrow_as_the_stream_expects() -> None:
    shard = training_plan(LABELS, 1, 4, "equal", seed=0).shard(0, 2)
    assert {name: str(shard.schema.field(name).type) for name in COLUMNS} == {
        "row": "int32",
        "epoch": "int32",
        "draw": "int32",
        "weight": "float",
    }
