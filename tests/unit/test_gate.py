import pyarrow as pa
import pytest

from dermaray.data.gate import check_gate, find_leaks
from dermaray.data.manifest import SCHEMA, Manifest
from dermaray.errors import DataError, LeakError
from dermaray.labels import LABEL_SETS


def manifest(*rows: dict[str, object]) -> Manifest:
    """One image per row, each of its own group unless the row says otherwise."""
    table = []
    for number, row in enumerate(rows):
        own = {"image_id": f"i{number}", "uri": f"/i{number}.jpg", "label": "nevus", "group_id": f"i{number}"}
        table.append({**dict.fromkeys(SCHEMA.names), **own, "sha256": f"{number:064}", "width": 9, "height": 9, **row})
    return Manifest(pa.Table.from_pylist(table, SCHEMA), LABEL_SETS["kaggle9"])


@pytest.mark.parametrize(
    ("column", "bond"),
    [
        ("lesion_id", "lesion"),
        ("patient_id", "patient"),
        ("duplicate_cluster", "duplicate cluster"),
        ("parent_id", "parent"),
        ("group_id", "group"),
        ("sha256", "file"),
    ],
)
@pytest.mark.parametrize("splits", [("train", "val"), ("train", "test"), ("val", "test")])
def test_whatever_crosses_is_refused_and_named(column: str, bond: str, splits: tuple[str, str]) -> None:
    crossing = manifest({column: "X", "split": splits[0]}, {"split": "train"}, {column: "X", "split": splits[1]})
    with pytest.raises(LeakError, match=f"{bond} X: i[02] in {min(splits)}, i[02] in {max(splits)}.*--allow-leaks"):
        check_gate(crossing)
    assert len(check_gate(crossing, allow=True)) == 1


def test_what_lies_on_one_side_passes() -> None:
    clean = manifest({"lesion_id": "X", "split": "train"}, {"lesion_id": "X", "split": "train"}, {"split": "test"})
    assert check_gate(clean) == []


def test_folds_are_sides_as_well() -> None:
    folds = manifest({"lesion_id": "X", "split": "train", "fold": 0}, {"lesion_id": "X", "split": "train", "fold": 1})
    assert find_leaks(folds) == ["lesion X: i0 in fold 0, i1 in fold 1"]


def test_four_leaks_are_named_and_the_others_counted() -> None:
    rows = [{"lesion_id": f"L{n}", "split": s} for n in range(1_005) for s in ("train", "test")]
    with pytest.raises(LeakError, match=r"L0: .*; lesion L1: .*; lesion L2: .*; lesion L3: .*; and 1,001 more"):
        check_gate(manifest(*rows))


def test_a_fold_becomes_the_val_split() -> None:
    folds = manifest({"split": "train", "fold": 0}, {"split": "train", "fold": 1}, {"split": "test"})
    assert folds.fold(1).table["split"].to_pylist() == ["train", "val", "test"]
    assert folds.fold(1).digest != folds.fold(0).digest
    with pytest.raises(DataError, match=r"folds 0 to 1\. Received: 2"):
        folds.fold(2)
    with pytest.raises(DataError, match="no folds"):
        manifest({"split": "train"}).fold(0)
