import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermaray.data.manifest import SCHEMA, Manifest, check_unchanged
from dermaray.errors import DataError
from dermaray.labels import LABEL_SETS, LabelSet

CUSTOM = LabelSet("custom", ("melanoma", "wart"), frozenset({"melanoma"}), "melanoma")
FACTS = {"source": "somewhere", "seed": 3, "source_images": 4}


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "image_id": f"image{number}",
        "uri": f"/images/image{number}.jpg",
        "label": "wart" if number % 2 else "melanoma",
        "group_id": f"lesion{number}",
        "split": "test" if number > 2 else "train",
        "age": 40.0 + number if number else None,
        "sex": None,
        "site": "back",
        "sha256": f"{number:064x}",
        "width": 600,
        "height": 450,
    } | changes


def manifest(rows: list[dict[str, Any]] | None = None, label_set: LabelSet = CUSTOM) -> Manifest:
    table = pa.Table.from_pylist([row(i) for i in range(4)] if rows is None else rows, SCHEMA)
    return Manifest(table, label_set, FACTS)


def changed(**changes: Any) -> Manifest:
    return manifest([row(0), row(1, **changes), row(2), row(3)])


@pytest.mark.parametrize("label_set", [CUSTOM, LABEL_SETS["isic2018"]], ids=lambda s: s.name)
def test_what_is_written_reads_back_the_same(label_set: LabelSet, tmp_path: Path) -> None:
    written = manifest([row(0, label=label_set.classes[0]), row(1, label=label_set.classes[1])], label_set)
    written.write(tmp_path / "manifest.parquet")
    for path in (tmp_path / "manifest.parquet", tmp_path):
        read = Manifest.read(path)
        assert read.table.equals(written.table)
        assert read.label_set == label_set
        assert read.facts == FACTS
        assert read.digest == written.digest


@pytest.mark.parametrize("changes", [{"label": "melanoma"}, {"split": "val"}, {"sha256": "f" * 64}, {"group_id": "x"}])
def test_the_digest_changes_with_what_a_model_learns_from(changes: dict[str, str]) -> None:
    assert changed(**changes).digest != manifest().digest


def test_the_digest_does_not_change_with_the_order_of_rows_or_where_files_lie() -> None:
    assert manifest([row(i) for i in (3, 1, 0, 2)]).digest == manifest().digest
    assert changed(uri="/elsewhere/image1.jpg").digest == manifest().digest


def test_the_digest_changes_with_the_order_of_classes() -> None:
    turned = LabelSet("custom", ("wart", "melanoma"), frozenset({"melanoma"}), "melanoma")
    assert manifest(label_set=turned).digest != manifest().digest


def test_rows_of_a_split_keep_their_order() -> None:
    assert manifest().rows("train")["image_id"].to_pylist() == ["image0", "image1", "image2"]
    assert manifest().rows("test")["image_id"].to_pylist() == ["image3"]


def test_an_empty_split_is_named_with_those_that_are_not() -> None:
    with pytest.raises(DataError, match=r"split 'val' of the manifest holds no image. It has: train \(3\), test \(1\)"):
        manifest().rows("val")


def test_label_indices_follow_the_label_set() -> None:
    everything = manifest()
    assert everything.label_indices(everything.table) == [0, 1, 0, 1]
    assert everything.label_indices(everything.rows("test")) == [1]


def test_a_missing_manifest(tmp_path: Path) -> None:
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(DataError, match=r"parquet does not exist. Make a manifest with: dermaray prepare"):
            Manifest.read(path)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    for data in (b"not parquet", b""):
        (tmp_path / "manifest.parquet").write_bytes(data)
        with pytest.raises(DataError, match=r"is no manifest. Make one with: dermaray prepare"):
            Manifest.read(tmp_path)


def test_a_foreign_parquet(tmp_path: Path) -> None:
    pq.write_table(manifest().table, tmp_path / "manifest.parquet")
    with pytest.raises(DataError, match=r"is no manifest. Make one with: dermaray prepare"):
        Manifest.read(tmp_path)


def test_a_manifest_of_another_version(tmp_path: Path) -> None:
    header = {"version": 99, "label_set": CUSTOM.to_dict(), "facts": {}}
    table = manifest().table.replace_schema_metadata({b"dermaray": json.dumps(header).encode()})
    pq.write_table(table, tmp_path / "manifest.parquet")
    with pytest.raises(DataError, match="has manifest version 99; this dermaray reads 2"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("column", ["label", "age", "height"])
def test_a_missing_column(column: str, tmp_path: Path) -> None:
    Manifest(manifest().table.drop_columns(column), CUSTOM).write(tmp_path / "manifest.parquet")
    with pytest.raises(DataError, match=f"lacks the column '{column}'. A manifest has: image_id, uri, label"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "holdout"}, "split 'holdout' is unknown. Known: train, val, test"),
        ({"label": "freckle"}, "label 'freckle' is unknown. Known: melanoma, wart"),
    ],
)
def test_an_unknown_value(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    changed(**changes).write(tmp_path / "manifest.parquet")
    with pytest.raises(DataError, match=message):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("source", "name"),
    [("/home/somebody/lesions", "lesions"), ("s3://bucket/lesions", "s3://bucket/lesions"), (None, "unknown")],
)
def test_what_a_model_keeps_of_its_data_names_no_folder_of_this_machine(source: str | None, name: str) -> None:
    facts = {} if source is None else {"source": source}
    described = Manifest(manifest().table, CUSTOM, {**facts, "seed": 3}).description()
    assert described["source"] == name
    assert (described["digest"], described["images"], described["seed"]) == (manifest().digest, 4, 3)


def test_another_picture_in_the_place_of_one_is_noticed() -> None:
    images = manifest().table
    uris, digests = images["uri"].to_pylist()[::-1], images["sha256"].to_pylist()[::-1]
    check_unchanged(uris, digests, images)
    check_unchanged(uris, ["", None, *digests[2:]], images)
    with pytest.raises(
        DataError, match=rf"{uris[1]} was usable when it was prepared, now it holds other bytes; so do 1 m"
    ):
        check_unchanged(uris, [digests[0], "f" * 64, "e" * 64, ""], images)
