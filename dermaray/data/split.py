"""Splits that part no group: whatever shows one lesion lies on one side. A holdout, or folds to cross-validate over."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from sklearn.model_selection import StratifiedGroupKFold

from dermaray.errors import DataError
from dermaray.yaml_config import Section

IntArray = npt.NDArray[np.intp]
ObjectArray = npt.NDArray[np.object_]

_LARGEST_HOLDOUT = 0.8
_SEEDS = 2**32


class SplitConfig(Section):
    """How images are divided.

    Attributes:
        seed: Decides which groups go where.
        val_fraction: Share of all images to validate on, about; ignored where the source has a val split or `folds` is
            set. Where the source's test split is larger than `test_fraction`, val is smaller in proportion.
        test_fraction: The same for the images to test on; ignored where the source has a test split.
        folds: Number of folds to cross-validate over in place of a val split, or null for a val split.
    """

    seed: int = Field(0, ge=0, lt=_SEEDS)
    val_fraction: float = Field(0.15, ge=0.01, lt=0.5)
    test_fraction: float = Field(0.15, ge=0.01, lt=0.5)
    folds: int | None = Field(None, ge=2, le=20)

    @model_validator(mode="after")
    def _leaves_images_to_train_on(self) -> "SplitConfig":
        if self.val_fraction + self.test_fraction >= _LARGEST_HOLDOUT:
            raise ValueError(
                f"val_fraction and test_fraction must come to less than {_LARGEST_HOLDOUT}. "
                f"Received: {self.val_fraction} and {self.test_fraction}"
            )
        return self


@dataclass(frozen=True)
class Assignment:
    """Where every image goes.

    Attributes:
        splits: `train`, `val` or `test` per image; no `val` where there are folds.
        folds: Per image the fold, from 0, in which it is validated on; None for test images, and for all images where
            there are no folds.
    """

    splits: list[str]
    folds: list[int | None]


def assign_splits(
    labels: Sequence[str], groups: Sequence[str], official: Sequence[str | None], config: SplitConfig
) -> Assignment:
    """Assign every image to a split and, where the configuration has folds, to a fold.

    Official splits are kept. A split that the source does not have is cut from its training images, stratified by
    label, whole groups at a time (scikit-learn's `StratifiedGroupKFold`). A group that official splits part already
    stays as it is: nothing is cut from it. With folds, the test split is that of the holdout of the same seed, and all
    other images, those of an official val split among them, are `train` and lie in one fold each: folds take the place
    of the val split.

    The result depends on the names of the groups, not on the order of the images.

    Args:
        labels: The class of every image.
        groups: What must not be parted, per image.
        official: The source's own split per image, or None.
        config: How many of each, and the seed.

    Raises:
        DataError: There are too few groups to cut from, or the classes are too small.
    """
    splits = np.array([split or "train" for split in official], dtype=object)
    if len(splits) and "train" not in splits:
        raise DataError(f"there are no training images, only {' and '.join(sorted(set(splits)))}")
    label_array, group_array = np.asarray(labels, dtype=object), np.asarray(groups, dtype=object)
    val, test = config.val_fraction, config.test_fraction
    _add_split("test", splits, label_array, group_array, test, test / (1 - val), config.seed)
    # The val split, or the folds, are drawn by a seed of their own.
    seed = (config.seed + 1) % _SEEDS
    folds: list[int | None] = [None] * len(splits)
    if config.folds is None:
        _add_split("val", splits, label_array, group_array, val, val / (1 - test), seed)
    else:
        (pool,) = np.nonzero(splits != "test")
        for number, members in enumerate(k_fold(label_array[pool], group_array[pool], config.folds, seed, "folds")):
            for position in pool[members]:
                folds[position] = number
        splits[pool] = "train"
    return Assignment([str(split) for split in splits], folds)


def split_digest(image_ids: Sequence[str], splits: Sequence[str], folds: Sequence[int | None]) -> str:
    """Return the SHA-256, in hexadecimal, of which image is in which split and fold, whatever the order of the rows."""
    rows = sorted(json.dumps(row) for row in zip(image_ids, splits, folds, strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _add_split(
    name: str, splits: ObjectArray, labels: ObjectArray, groups: ObjectArray, of_all: float, of_rest: float, seed: int
) -> None:
    """Cut a split that is missing from the training images, in place.

    It takes the share `of_all` of all images, but no more than `of_rest` of those that it is cut from.
    """
    if name in splits:
        return
    parted = set(groups[splits != "train"])
    pool = np.array([i for i in np.flatnonzero(splits == "train") if groups[i] not in parted], dtype=np.intp)
    if not len(pool):
        found = ", ".join(sorted(set(splits))) or "no images"
        raise DataError(f"there are no training images to cut a {name} split from. Received: {found}")
    fraction = min(of_all * len(splits) / len(pool), of_rest)
    splits[pool[_cut(labels[pool], groups[pool], fraction, seed, name)]] = name


def _cut(labels: ObjectArray, groups: ObjectArray, fraction: float, seed: int, name: str) -> IntArray:
    """Return the positions of about `fraction` of the images, with about that share of every class."""
    taken, k = _as_folds(fraction)
    folds = k_fold(labels, groups, k, seed, f"{name} split")
    classes, codes = np.unique(labels, return_inverse=True)
    counts = np.array([np.bincount(codes[fold], minlength=len(classes)) for fold in folds])
    total = counts.sum(axis=0)

    def badness(run: list[int]) -> tuple[int, float]:
        """Count the classes that would be missing on one side; then how far the worst is from its share."""
        chosen = counts[run].sum(axis=0)
        one_sided = (chosen == 0) | (chosen == total)
        return int(one_sided.sum()), float(np.abs(chosen / total - fraction).max())

    # A class with fewer groups than folds is not in all of them: which folds are taken is not all one.
    best = min(([(start + i) % k for i in range(taken)] for start in range(k)), key=badness)
    return np.concatenate([folds[number] for number in best])


def _as_folds(fraction: float) -> tuple[int, int]:
    """Return how many of how few folds come close to a fraction: 3 of 10 for 0.3."""
    tolerance = min(0.01, fraction / 10)
    k = 2
    while abs(round(fraction * k) / k - fraction) > tolerance:
        k += 1
    return round(fraction * k), k


def k_fold(labels: ObjectArray, groups: ObjectArray, k: int, seed: int, purpose: str) -> list[Any]:
    """Return the positions of the images of every fold.

    Args:
        labels: The class of every image.
        groups: What must not be parted, per image.
        k: How many folds.
        seed: Decides which groups go where.
        purpose: What they are for, in an error.

    Raises:
        DataError: There are too few groups, or the classes are too small.
    """
    if (found := len(set(groups))) < k:
        raise DataError(f"{found} groups of images are too few to split. At least {k} are needed for the {purpose}")
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer images than folds cannot be in every fold; that is for whoever counts the classes to say.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return [chosen for _, chosen in splitter.split(np.zeros(len(labels)), labels, groups)]
        except ValueError as error:
            raise DataError(f"the classes are too small to split: every one has fewer than {k} images") from error
