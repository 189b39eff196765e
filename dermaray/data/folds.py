"""The training images of a manifest, divided anew: for several models that each validate on another part of them."""

import numpy as np

from dermaray.data.manifest import Manifest
from dermaray.data.split import k_fold


def folds_of_training(manifest: Manifest, count: int, seed: int) -> list[Manifest]:
    """Return a manifest for each part: it is `val`, the other parts are `train`.

    No group is parted, and every class is in every part where it has enough groups. What was `val` in the manifest is
    kept from all of the models, as `test`.

    Args:
        manifest: Has a train split.
        count: How many parts.
        seed: Decides which groups go where.

    Raises:
        DataError: The train split is empty or has too few groups.
    """
    rows = manifest.rows("train")
    labels, groups = (np.array(rows[name].to_pylist(), dtype=object) for name in ("label", "group_id"))
    image_ids = np.array(rows["image_id"].to_pylist(), dtype=object)
    parts = k_fold(labels, groups, count, seed, "folds")
    return [manifest.with_splits(_splits(manifest, set(image_ids[part])), fold) for fold, part in enumerate(parts)]


def _splits(manifest: Manifest, chosen: set[str]) -> list[str]:
    pairs = zip(manifest.table["image_id"].to_pylist(), manifest.table["split"].to_pylist(), strict=True)
    return ["val" if name in chosen else "train" if split == "train" else "test" for name, split in pairs]
