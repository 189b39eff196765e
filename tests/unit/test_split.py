from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaray.data.split import TEST_FRACTION, VAL_FRACTION, assign_splits
from dermaray.errors import DataError

SPLITS = {"train", "val", "test"}


def random_source(images: int, groups: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return labels, of which `rare` is one in ten, and groups of one label each, as lesions are."""
    rng = np.random.default_rng(seed)
    label_of = rng.choice(["common", "rare"], groups, p=[0.9, 0.1])
    members = rng.integers(0, groups, images)
    return [str(label_of[g]) for g in members], [f"lesion{g}" for g in members]


def shares(splits: list[str]) -> dict[str, float]:
    return {name: count / len(splits) for name, count in Counter(splits).items()}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=20, max_size=120).filter(
        lambda rows: len({group for _, group in rows}) >= 14
    ),
    seed=st.integers(0, 1000),
)
def test_no_group_is_parted_and_no_split_is_empty(rows: list[tuple[str, int]], seed: int) -> None:
    labels, groups = [label for label, _ in rows], [str(group) for _, group in rows]
    splits = assign_splits(labels, groups, [None] * len(rows), seed=seed)
    assert len(splits) == len(rows)
    assert set(splits) == SPLITS
    assert all(len({s for s, g in zip(splits, groups, strict=True) if g == group}) == 1 for group in groups)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=7, max_size=60),
    seed=st.integers(0, 1000),
)
def test_few_or_unequal_groups_are_split_whole_or_refused(rows: list[tuple[str, int]], seed: int) -> None:
    labels, groups = [label for label, _ in rows], [str(group) for _, group in rows]
    try:
        splits = assign_splits(labels, groups, [None] * len(rows), seed=seed)
    except DataError:
        return
    assert set(splits) == SPLITS
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_about_those_asked_for(seed: int) -> None:
    labels, groups = random_source(1000, 400, seed)
    found = shares(assign_splits(labels, groups, [None] * 1000, seed=seed))
    assert found["test"] == pytest.approx(TEST_FRACTION, abs=0.03)
    assert found["val"] == pytest.approx(VAL_FRACTION, abs=0.03)


def test_other_shares_can_be_asked_for() -> None:
    labels, groups = random_source(1000, 400)
    splits = assign_splits(labels, groups, [None] * 1000, seed=0, val_fraction=0.1, test_fraction=0.25)
    found = shares(splits)
    assert found["test"] == pytest.approx(0.25, abs=0.03)
    assert found["val"] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_every_split_has_its_part_of_every_class(seed: int) -> None:
    labels, groups = random_source(2000, 800, seed)
    splits = assign_splits(labels, groups, [None] * 2000, seed=seed)
    overall = labels.count("rare") / 2000
    for name in SPLITS:
        chosen = [label for label, split in zip(labels, splits, strict=True) if split == name]
        assert chosen.count("rare") / len(chosen) == pytest.approx(overall, abs=0.03)


def test_official_splits_are_kept_and_the_missing_one_is_cut_from_train() -> None:
    labels, groups = random_source(600, 200)
    official = ["test" if int(group.removeprefix("lesion")) < 40 else "train" for group in groups]
    splits = assign_splits(labels, groups, official, seed=0)
    assert [split == "test" for split in splits] == [name == "test" for name in official]
    assert shares(splits)["val"] == pytest.approx(VAL_FRACTION, abs=0.03)


def test_a_source_that_has_all_splits_is_left_as_it_is() -> None:
    official = ["train", "val", "test", "train"]
    assert assign_splits(list("abab"), list("wxyz"), official, seed=0) == official


def test_the_seed_decides() -> None:
    labels, groups = random_source(300, 150)
    first, again, other = (assign_splits(labels, groups, [None] * 300, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("groups", [["same"] * 40, [str(i % 6) for i in range(40)]])
def test_too_few_groups(groups: list[str]) -> None:
    with pytest.raises(DataError, match=rf"{len(set(groups))} groups of images are too few to split. At least 7"):
        assign_splits(["a"] * 40, groups, [None] * 40, seed=0)


def test_classes_of_a_few_images_each() -> None:
    labels = [str(i // 3) for i in range(30)]
    with pytest.raises(DataError, match="classes are too small to split: every one has fewer than 7 images"):
        assign_splits(labels, [str(i) for i in range(30)], [None] * 30, seed=0)


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_source_without_training_images(name: str) -> None:
    with pytest.raises(DataError):
        assign_splits(["a"] * 20, [str(i) for i in range(20)], [name] * 20, seed=0)
