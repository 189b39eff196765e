from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dermaray.data.split import Assignment, SplitConfig, assign_splits, split_digest
from dermaray.errors import DataError

Source = tuple[list[str], list[str], list[str | None]]

SPLITS = {"train", "val", "test"}
# Lesions per class as in HAM10000, a twelfth of them.
LESIONS = {"nv": 450, "bkl": 60, "mel": 51, "bcc": 27, "akiec": 19, "vasc": 8, "df": 6}


def random_source(images: int, groups: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return labels, of which `rare` is one in ten, and groups of one label each, as lesions are."""
    rng = np.random.default_rng(seed)
    label_of = rng.choice(["common", "rare"], groups, p=[0.9, 0.1])
    members = rng.integers(0, groups, images)
    return [str(label_of[g]) for g in members], [f"lesion{g}" for g in members]


def lesions(seed: int = 0) -> tuple[list[str], list[str]]:
    """Return labels and groups in the proportions of HAM10000, one to three images per lesion."""
    rng = np.random.default_rng(seed)
    pairs = [(c, f"{c}{i}") for c, count in LESIONS.items() for i in range(count) for _ in range(rng.integers(1, 4))]
    return [label for label, _ in pairs], [group for _, group in pairs]


def split(labels: list[str], groups: list[str], official: list[str | None] | None = None, **config: Any) -> Assignment:
    return assign_splits(labels, groups, official or [None] * len(labels), SplitConfig(**config))


def shares(splits: list[str]) -> dict[str, float]:
    return {name: count / len(splits) for name, count in Counter(splits).items()}


def places(assignment: Assignment) -> list[tuple[str, int | None]]:
    return list(zip(assignment.splits, assignment.folds, strict=True))


@st.composite
def sources(draw: st.DrawFn) -> Source:
    """A source with up to forty groups, of which some images may be in official splits, and some groups parted."""
    rows = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), min_size=20, max_size=120))
    kinds = draw(st.sampled_from([[None], [None, "test"], ["train", "val"], ["train", "val", "test"]]))
    # An official split goes by group, but for a few images.
    of_group = draw(st.lists(st.sampled_from([kinds[0], *kinds]), min_size=41, max_size=41))
    stray = draw(st.sets(st.integers(0, len(rows) - 1), max_size=3))
    official = [kinds[-1] if i in stray else of_group[group] for i, (_, group) in enumerate(rows)]
    return [label for label, _ in rows], [str(group) for _, group in rows], official


configs = st.builds(
    SplitConfig,
    seed=st.integers(0, 2**32 - 1),
    val_fraction=st.sampled_from([0.1, 0.15, 0.3]),
    test_fraction=st.sampled_from([0.1, 0.2, 0.33]),
    folds=st.one_of(st.none(), st.integers(2, 6)),
)


@settings(max_examples=100, deadline=None)
@given(source=sources(), config=configs)
def test_no_cut_of_ours_parts_a_group_and_what_is_official_stays(source: Source, config: SplitConfig) -> None:
    labels, groups, official = source
    try:
        result = assign_splits(labels, groups, official, config)
    except DataError:
        assume(False)
    places_of: dict[str, set[str]] = {}
    parted = {g for g in groups if len({o or "train" for o, h in zip(official, groups, strict=True) if h == g}) > 1}
    for row, (name, fold) in enumerate(places(result)):
        places_of.setdefault(groups[row], set()).add(f"{name} {fold}")
        kept = official[row] or "train"
        if config.folds is not None and kept == "val":
            kept = "train"
        if kept != "train" or groups[row] in parted:
            assert name == kept
        elif name != "train":
            assert name not in official
    assert {group for group, found in places_of.items() if len(found) > 1} <= parted
    assert set(result.splits) == (SPLITS if config.folds is None else {"train", "test"})


@settings(max_examples=40, deadline=None)
@given(source=sources(), config=configs, folds=st.integers(2, 6))
def test_folds_divide_all_but_the_test_images_of_the_holdout(source: Source, config: SplitConfig, folds: int) -> None:
    try:
        holdout = assign_splits(*source, config.model_copy(update={"folds": None}))
        result = assign_splits(*source, config.model_copy(update={"folds": folds}))
    except DataError:
        assume(False)
    assert [name == "test" for name in result.splits] == [name == "test" for name in holdout.splits]
    assert [fold is None for fold in result.folds] == [name == "test" for name in result.splits]
    assert set(result.folds) - {None} == set(range(folds))
    assert holdout.folds == [None] * len(holdout.splits)


@settings(max_examples=40, deadline=None)
@given(source=sources(), config=configs, order=st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(source: Source, config: SplitConfig, order: Any) -> None:
    rows = list(range(len(source[0])))
    order.shuffle(rows)
    try:
        straight = assign_splits(*source, config)
    except DataError as error:
        with pytest.raises(DataError, match=str(error)):
            assign_splits(*([column[i] for i in rows] for column in source), config=config)
        return
    mixed = assign_splits(*([column[i] for i in rows] for column in source), config=config)
    assert places(mixed) == [places(straight)[i] for i in rows]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    val=st.floats(0.05, 0.39),
    test=st.floats(0.05, 0.39),
    source=st.integers(0, 5),
)
def test_shares_are_within_two_points_of_those_asked_for(seed: int, val: float, test: float, source: int) -> None:
    labels, groups = random_source(400, 200, source)
    found = shares(split(labels, groups, seed=seed, val_fraction=val, test_fraction=test).splits)
    assert found["test"] == pytest.approx(test, abs=0.02)
    assert found["val"] == pytest.approx(val, abs=0.02)


@pytest.mark.parametrize("fraction", [0.1, 0.15, 0.2, 0.3])
@pytest.mark.parametrize("seed", range(2))
def test_every_class_has_its_share_of_val_and_test(fraction: float, seed: int) -> None:
    labels, groups = lesions(seed)
    result = split(labels, groups, seed=seed, val_fraction=fraction, test_fraction=fraction)
    pairs, of_class = Counter(zip(labels, result.splits, strict=True)), Counter(labels)
    for name in ("val", "test"):
        assert shares(result.splits)[name] == pytest.approx(fraction, abs=0.02)
        for label in ("nv", "bkl", "mel", "bcc"):
            assert pairs[label, name] / of_class[label] == pytest.approx(fraction, abs=0.05)
    assert all(pairs[label, name] for label in LESIONS for name in SPLITS)


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_three_lesions_is_in_every_split(seed: int) -> None:
    labels, groups = lesions(seed)
    labels, groups = [*labels, "odd", "odd", "odd"], [*groups, "odd0", "odd1", "odd2"]
    result = split(labels, groups, seed=seed)
    assert set(result.splits[-3:]) == SPLITS


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_lesion_is_trained_on(seed: int) -> None:
    labels, groups = lesions(seed)
    assert split([*labels, "odd"], [*groups, "odd0"], seed=seed).splits[-1] == "train"


def test_every_fold_has_its_share_of_every_class() -> None:
    labels, groups = lesions()
    result = split(labels, groups, folds=5)
    pairs = Counter(zip(labels, result.folds, strict=True))
    outside = Counter(label for label, fold in zip(labels, result.folds, strict=True) if fold is not None)
    for label in ("nv", "bkl", "mel", "bcc"):
        assert all(pairs[label, fold] / outside[label] == pytest.approx(0.2, abs=0.05) for fold in range(5))


def test_official_splits_are_kept_and_the_missing_one_is_cut_from_train() -> None:
    labels, groups = random_source(600, 200)
    official: list[str | None] = ["test" if int(group.removeprefix("lesion")) < 40 else "train" for group in groups]
    splits = split(labels, groups, official).splits
    assert [name == "test" for name in splits] == [name == "test" for name in official]
    assert shares(splits)["val"] == pytest.approx(0.15, abs=0.03)


def test_beside_a_large_official_test_split_val_is_smaller_in_proportion() -> None:
    labels, groups = random_source(600, 300)
    official: list[str | None] = ["test" if int(group.removeprefix("lesion")) < 200 else None for group in groups]
    counts = Counter(split(labels, groups, official, val_fraction=0.3, test_fraction=0.2).splits)
    assert counts["val"] / (counts["val"] + counts["train"]) == pytest.approx(0.3 / 0.8, abs=0.03)


def test_folds_take_the_place_of_an_official_val_split() -> None:
    labels, groups = random_source(300, 150)
    official: list[str | None] = [["train", "val", "test"][int(g.removeprefix("lesion")) % 3] for g in groups]
    result = split(labels, groups, official, folds=4)
    assert result.splits == ["train" if name == "val" else name for name in official]
    assert {fold for fold, name in zip(result.folds, official, strict=True) if name == "val"} == {0, 1, 2, 3}


def test_a_source_that_has_all_splits_is_left_as_it_is() -> None:
    official: list[str | None] = ["train", "val", "test", "train"]
    assert split(list("abab"), list("wxyz"), official) == Assignment(["train", "val", "test", "train"], [None] * 4)


def test_the_seed_decides() -> None:
    labels, groups = random_source(300, 150)
    for folds in (None, 5):
        first, again, other = (split(labels, groups, seed=seed, folds=folds) for seed in (1, 1, 2))
        assert first == again
        assert first != other


def test_the_largest_seed() -> None:
    labels, groups = random_source(100, 50)
    assert set(split(labels, groups, seed=2**32 - 1).splits) == SPLITS


@pytest.mark.parametrize("groups", [["same"] * 40, [str(i % 6) for i in range(40)]])
def test_too_few_groups(groups: list[str]) -> None:
    with pytest.raises(DataError, match=rf"{len(set(groups))} groups of images are too few to split. At least 7"):
        split(["a"] * 40, groups)


def test_more_folds_than_groups() -> None:
    with pytest.raises(DataError, match=r"8 groups of images are too few to split. At least 12 are needed"):
        split(["a"] * 40, [str(i % 10) for i in range(40)], test_fraction=0.2, folds=12)


def test_classes_of_a_few_images_each() -> None:
    labels = [str(i // 3) for i in range(30)]
    with pytest.raises(DataError, match="classes are too small to split: every one has fewer than 7 images"):
        split(labels, [str(i) for i in range(30)])


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_source_without_training_images(name: str) -> None:
    with pytest.raises(DataError, match=rf"no training images, only {name}"):
        split(["a"] * 20, [str(i) for i in range(20)], [name] * 20)


@pytest.mark.parametrize(
    "values",
    [
        {"seed": -1},
        {"seed": 2**32},
        {"val_fraction": 0.0},
        {"test_fraction": 0.5},
        {"val_fraction": 0.4, "test_fraction": 0.4},
        {"folds": 1},
        {"folds": 21},
        {"fraction": 0.1},
    ],
)
def test_what_cannot_be_asked_for(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SplitConfig(**values)


rows = st.lists(
    st.tuples(st.text(max_size=6), st.sampled_from(sorted(SPLITS)), st.one_of(st.none(), st.integers(0, 9))),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row[0],
)


@given(first=rows, second=rows, order=st.randoms(use_true_random=False))
def test_the_digest_is_that_of_the_set_of_rows(first: list[Any], second: list[Any], order: Any) -> None:
    mixed = list(first)
    order.shuffle(mixed)
    assert digest(first) == digest(mixed)
    assert (digest(first) == digest(second)) == (set(first) == set(second))


@given(given_rows=rows, data=st.data())
def test_the_digest_tells_any_change(given_rows: list[Any], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(given_rows) - 1))
    image_id, name, fold = given_rows[position]
    for changed in ((image_id + "x", name, fold), (image_id, name + "x", fold), (image_id, name, (fold or 0) + 1)):
        assert digest([*given_rows[:position], changed, *given_rows[position + 1 :]]) != digest(given_rows)
    assert digest([*given_rows, ("another", "train", None)]) != digest(given_rows)


def digest(given_rows: list[Any]) -> str:
    return split_digest(*(list(column) for column in zip(*given_rows, strict=True)))
