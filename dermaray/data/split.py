"""Splits that part no group: whatever shows one lesion lies on one side."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from dermaray.errors import DataError

VAL_FRACTION = 0.15
TEST_FRACTION = 0.15


def assign_splits(
    labels: Sequence[str],
    groups: Sequence[str],
    official: Sequence[str | None],
    *,
    seed: int,
    val_fraction: float = VAL_FRACTION,
    test_fraction: float = TEST_FRACTION,
) -> list[str]:
    """Assign every image to `train`, `val` or `test`.

    Official splits are kept. A split that the source does not have is cut from its training images, stratified by
    label, whole groups at a time (scikit-learn's `StratifiedGroupKFold`).

    Args:
        labels: The class of every image.
        groups: What must not be parted, per image.
        official: The source's own split per image, or None.
        seed: Decides which groups go where.
        val_fraction: Share of all images to validate on, about.
        test_fraction: Share of all images to test on, about; ignored where the source has a test split.

    Raises:
        DataError: There are too few groups to cut from.
    """
    splits = np.array([split or "train" for split in official], dtype=object)
    label_array, group_array = np.asarray(labels, dtype=object), np.asarray(groups, dtype=object)
    total = len(splits)
    for offset, (name, fraction) in enumerate((("test", test_fraction), ("val", val_fraction))):
        if name in splits:
            continue
        (pool,) = np.nonzero(splits == "train")
        if not len(pool):
            raise DataError(f"the source has no training images, only {', '.join(sorted(set(splits)))}")
        chosen = _cut(label_array[pool], group_array[pool], fraction * total / len(pool), seed + offset)
        splits[pool[chosen]] = name
    return [str(split) for split in splits]


def _cut(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the positions of about `fraction` of the images: one fold of a stratified, grouped k-fold."""
    folds = max(2, round(1 / fraction))
    if len(set(groups)) < folds:
        raise DataError(f"{len(set(groups))} groups of images are too few to split. At least {folds} are needed")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer images than folds cannot be in every fold; one holdout does not need it to be.
        warnings.simplefilter("ignore", UserWarning)
        try:
            _, chosen = next(splitter.split(np.zeros(len(labels)), labels, groups))
        except ValueError as error:
            raise DataError(f"the classes are too small to split: every one has fewer than {folds} images") from error
    return np.asarray(chosen)
