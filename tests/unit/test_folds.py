"""Folds of the training images: every image is validated on once, no group is parted, and `val` is kept from all."""

from collections import Counter

import pyarrow as pa
import pytest

from dermaray.data.folds import folds_of_training
from dermaray.data.gate import check_gate
from dermaray.data.manifest import SCHEMA, Manifest
from dermaray.errors import DataError
from dermaray.labels import LABEL_SETS

CLASSES = LABEL_SETS["isic2018"].classes


def manifest(train: int = 210, val: int = 35, test: int = 35) -> Manifest:
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    rows = [
        {
            **dict.fromkeys(SCHEMA.names),
            "image_id": f"i{i}",
            "uri": f"/i{i}.jpg",
            "label": CLASSES[i // 3 % len(CLASSES)],
            # Three images of a lesion.
            "group_id": f"{split}{i // 3}",
            "lesion_id": f"{split}{i // 3}",
            "split": split,
            "sha256": f"{i:064x}",
            "width": 10,
            "height": 10,
        }
        for i, split in enumerate(splits)
    ]
    return Manifest(pa.Table.from_pylist(rows, SCHEMA), LABEL_SETS["isic2018"], {"source": "somewhere"})


def test_every_training_image_is_validated_on_once() -> None:
    whole = manifest()
    parts = folds_of_training(whole, 5, seed=0)
    seen = Counter(name for part in parts for name in part.rows("val")["image_id"].to_pylist())
    assert seen == Counter(whole.rows("train")["image_id"].to_pylist())
    for part in parts:
        val, train, test = (set(part.rows(split)["group_id"].to_pylist()) for split in ("val", "train", "test"))
        assert not val & train
        assert set(part.rows("val")["label"].to_pylist()) == set(CLASSES)
        assert set(whole.rows("val")["group_id"].to_pylist()) <= test
        assert part.facts["unfolded_digest"] == whole.digest
        assert check_gate(part, allow=False) == []
    assert len({part.digest for part in parts}) == 5


def test_a_fold_that_is_divided_again_is_still_known_as_part_of_the_whole() -> None:
    whole = manifest()
    part = folds_of_training(folds_of_training(whole, 3, seed=0)[0], 3, seed=0)[0]
    assert part.facts["unfolded_digest"] == whole.digest


def test_the_same_seed_gives_the_same_folds() -> None:
    one, same, other = (folds_of_training(manifest(), 3, seed=seed)[0].digest for seed in (1, 1, 2))
    assert one == same != other


def test_too_few_lesions_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 groups of images are too few to split. At least 3"):
        folds_of_training(manifest(train=3), 3, seed=0)
