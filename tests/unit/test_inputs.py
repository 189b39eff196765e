"""What is to be scored, as people have it: each kind of input gives its images, or says why not."""

import io
import os
import re
import socket
import tarfile
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dermaray.data import storage, store_errors
from dermaray.data.archive import Listing, joined
from dermaray.data.inputs import stream_inputs
from dermaray.data.manifest import SCHEMA, Manifest
from dermaray.data.members import Member, read_members
from dermaray.data.storage import is_text
from dermaray.errors import DataError, StoreError
from dermaray.labels import LABEL_SETS
from tests.object_store import Bucket


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {f"image{number}": png(number) for number in range(5)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name, data in IMAGES.items():
        (tmp_path / "images" / f"{name}.png").write_bytes(data)
    return tmp_path / "images"


def listing_of(*places: object) -> Listing:
    return joined(stream_inputs([str(place) for place in places]))


def read(*places: object) -> list[Member]:
    listing = listing_of(*places)
    members = list(read_members(listing.members))
    assert listing.images in (None, len(members))
    return members


def found(*places: object) -> dict[str, bytes]:
    members = read(*places)
    assert len({member.uri for member in members}) == len(members)
    assert [member.error for member in members] == [None] * len(members)
    return {member.image_id: member.data for member in members}


def table(**columns: Any) -> pa.Table:
    return pa.table({"image_id": list(IMAGES), **columns})


def write_parquet(path: Path, rows: pa.Table) -> Path:
    pq.write_table(rows, path, row_group_size=2)
    return path


def test_several_inputs_are_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(png(9))
    assert found(folder, tmp_path / "one.png") == {**IMAGES, "one": png(9)}


def test_a_pattern(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.md").write_text("no image")
    assert found(tmp_path / "*" / "image[0-2].png") == {name: IMAGES[name] for name in list(IMAGES)[:3]}
    # Prose, as it lies beside images.
    (folder / "LICENSE.txt").write_text("You may")
    (tmp_path / "images" / "more").mkdir()
    write_parquet(folder / "more" / "rows.parquet", table(bytes=[png(n) for n in range(10, 15)]).drop(["image_id"]))
    members = read(tmp_path / "**" / "*")
    assert [m.image_id for m in members] == [*IMAGES, *(f"rows-{row}" for row in range(5))]
    assert listing_of(tmp_path / "**" / "*").ignored == {".md": 1, ".txt": 1}


def test_a_list_of_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"images/image3.png\n\n{folder / 'image1.png'}\nimages/gone.png\n")
    three, one, gone = read(tmp_path / "list.txt")
    assert (three.data, one.data) == (IMAGES["image3"], IMAGES["image1"])
    # It has its row all the same.
    assert gone.error is not None
    assert gone.error.reason == "unreadable"


def test_a_list_as_editors_write_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{folder / 'image1.png'}\r\nimages/image3.png\r\n", encoding="utf-8-sig")
    assert found(tmp_path / "list.txt") == {name: IMAGES[name] for name in ("image1", "image3")}


def test_lines_that_name_nothing_have_their_rows(folder: Path, tmp_path: Path) -> None:
    lines = ["images/image3.png", "file:///data/my image.jpg", "l\xe4sionen/1.jpg", "images/l\xe4sion.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="latin-1")
    three, *others = read(tmp_path / "list.txt")
    assert three.data == IMAGES["image3"]
    for member in others:
        assert member.error is not None
        assert member.error.reason == "unreadable"
        member.uri.encode()
        member.image_id.encode()
    assert "%20" in str(others[0].error)


def test_a_table_of_a_name_in_no_encoding_is_refused(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xe4sionen"))
    folder.mkdir()
    write_parquet(tmp_path / "rows.parquet", table(bytes=list(IMAGES.values()))).rename(folder / "rows.parquet")
    with pytest.raises(DataError, match=r"l\\xe4sionen/rows.parquet: the name is not valid UTF-8, and rows name"):
        listing_of(folder / "rows.parquet")


def test_a_row_group_is_not_held_as_a_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.bytes(10_000) for _ in range(6000)]
    pq.write_table(pa.table({"bytes": images}), tmp_path / "rows.parquet")
    listing = listing_of(tmp_path / "rows.parquet")
    before = pa.total_allocated_bytes()
    members = read_members(listing.members)
    assert next(members).data == images[0]
    assert pa.total_allocated_bytes() - before < 30_000_000


@pytest.mark.parametrize("column", ["bytes", "image"])
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "stream"])
def test_a_table_of_bytes(suffix: str, column: str, tmp_path: Path) -> None:
    values: Any = list(IMAGES.values())
    if column == "image":
        values = [{"bytes": data, "path": None} for data in values]
    path = tmp_path / f"rows.{suffix}".replace("stream", "arrow")
    rows = table(**{column: values, "label": ["nevus"] * 5})
    if suffix == "parquet":
        write_parquet(path, rows)
    elif suffix == "stream":
        with pa.ipc.new_stream(path, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=2)
    else:
        pyarrow.feather.write_feather(rows, path, chunksize=2, compression="uncompressed")
    assert found(path) == IMAGES
    assert [member.uri for member in read(path)] == [f"{path}::{row}" for row in range(5)]


def test_a_table_of_paths(folder: Path, tmp_path: Path) -> None:
    paths = [f"images/{name}.png" for name in IMAGES]
    assert found(write_parquet(tmp_path / "rows.parquet", table(path=paths))) == IMAGES


def test_a_path_that_is_missing_or_in_no_encoding_costs_no_other(folder: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    (tmp_path / odd).write_bytes(png(7))
    paths = pa.array([b"images/image0.png", None, os.fsencode(odd)], pa.binary()).view(pa.string())
    for named in (["a", "b", "c"], None):
        rows = pa.table({"path": paths, **({"isic_id": named} if named else {})})
        one, missing, other = read(write_parquet(tmp_path / "rows.parquet", rows))
        assert (one.data, other.data) == (png(0), png(7))
        assert [one.image_id, missing.image_id, other.image_id] == (named or ["image0", "rows-1", "caf\\xe9"])
        assert missing.uri == f"{tmp_path / 'rows.parquet'}::1"
        assert (missing.error.reason, str(missing.error)) == ("unreadable", "its path is missing")


def test_an_id_that_is_in_no_encoding_is_shown(tmp_path: Path) -> None:
    ids = pa.array([b"caf\xe9", b"plain"], pa.binary()).view(pa.string())
    table = pa.table({"image_id": ids, "bytes": [png(0), png(1)]})
    assert found(write_parquet(tmp_path / "rows.parquet", table)) == {"caf\\xe9": png(0), "plain": png(1)}


def test_an_archive_that_cannot_be_listed_costs_no_other(folder: Path, tmp_path: Path) -> None:
    whole, cut, empty = (tmp_path / "packed" / name for name in ("whole.zip", "cut.zip", "empty.tar"))
    whole.parent.mkdir()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.write(folder / "image0.png", "image0.png")
    cut.write_bytes(whole.read_bytes()[:-30])
    empty.write_bytes(b"")
    for places in ([whole.parent / "*"], [whole, cut, empty]):
        members = {Path(member.uri).name: member for member in read(*places)}
        assert members["whole.zip::image0.png"].data == png(0)
        for name in ("cut.zip", "empty.tar"):
            error = members[name].error
            assert error is not None
            assert (error.reason, members[name].image_id) == ("unreadable", Path(name).stem)
            assert re.search("is a damaged zip: |A folder or one of those was expected$", str(error))
    # A name that nothing has is the user's mistake.
    for mistyped in (tmp_path / "packed" / "mistyped.zip", "memory://nothing/mistyped.zip", "nonsense://a/b.zip"):
        with pytest.raises(DataError, match=r"does not exist|unknown kind of store"):
            read(whole, mistyped)
    # Nor need the name be in any encoding.
    odd = whole.parent / os.fsdecode(b"c\xe9.zip")
    os.rename(cut, odd)
    for places in ([whole.parent / "*.zip"], [whole, odd]):
        (lost,) = (member for member in read(*places) if member.error)
        assert (lost.image_id, lost.uri) == ("c\\xe9", f"{whole.parent}/c\\xe9.zip")
        assert is_text(str(lost.error))


def test_names_of_what_is_passed_over_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    for name in (b"not\xe9s", b"x.\xe9"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    assert listing_of(tmp_path).ignored == {".\\xe9": 1, "not\\xe9s": 1}


def test_of_a_stream_that_is_cut_off_the_start_is_read_and_one_row_tells_of_the_loss(tmp_path: Path) -> None:
    rows, path = table(bytes=list(IMAGES.values())), tmp_path / "rows.arrow"
    with pa.ipc.new_stream(path, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    *whole, lost = read(path)
    assert [member.data for member in whole] == list(IMAGES.values())[: len(whole)]
    assert len(whole) >= 2
    assert lost.error is not None


def test_dicom_files_need_no_suffix(tmp_path: Path) -> None:
    data = bytes(128) + b"DICM" + bytes(100)
    for name in ("IM000001", "1.2.840.113619", "DICOMDIR", ".hidden", "notes.txt"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "README").write_text("no image")
    listing = listing_of(tmp_path)
    assert [member.image_id for member in read_members(listing.members)] == ["1.2.840.113619", "IM000001"]
    assert listing.ignored == {".hidden": 1, ".txt": 1, "DICOMDIR": 1, "README": 1}
    assert listing_of(tmp_path / "*").images == 2
    assert listing_of(tmp_path / "IM000001").images == 1


def test_a_link_counts_from_where_it_lies(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    write_parquet(tmp_path / "store" / "blob", table(path=[f"images/{name}.png" for name in IMAGES]))
    (tmp_path / "rows.parquet").symlink_to(tmp_path / "store" / "blob")
    assert found(tmp_path / "rows.parquet") == IMAGES


def test_a_table_that_is_damaged_further_on_has_a_row_for_each_of_its_rows(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", table(bytes=list(IMAGES.values())))
    metadata = pq.read_metadata(path)
    start = metadata.row_group(1).column(1).data_page_offset
    listing = listing_of(path)
    whole = bytearray(path.read_bytes())
    whole[start : start + 40] = bytes(40)
    path.write_bytes(whole)
    members = list(read_members(listing.members))
    assert [member.uri for member in members] == [f"{path}::{row}" for row in range(5)]
    assert [member.error is None for member in members] == [True, True, False, False, True]


def test_a_manifest(folder: Path, tmp_path: Path) -> None:
    rows = [
        {
            "image_id": f"lesion of {name}",
            "uri": str(folder / f"{name}.png"),
            "label": "NV",
            "group_id": name,
            "split": "test",
            "sha256": "0" * 64,
            "width": 32,
            "height": 24,
        }
        for name in IMAGES
    ]
    Manifest(pa.Table.from_pylist(rows, SCHEMA), LABEL_SETS["isic2018"], {}).write(tmp_path / "manifest.parquet")
    expected = {f"lesion of {name}": data for name, data in IMAGES.items()}
    assert found(tmp_path / "manifest.parquet") == found(tmp_path) == expected


def test_an_object_store(bucket: Bucket, tmp_path: Path) -> None:
    for name, data in IMAGES.items():
        bucket.client.put_object(Bucket=bucket.name, Key=f"all/{name}.png", Body=data)
    bucket.client.put_object(Bucket=bucket.name, Key="all/notes.md", Body=b"no image")
    rows = write_parquet(tmp_path / "rows.parquet", table(bytes=list(IMAGES.values())))
    bucket.client.put_object(Bucket=bucket.name, Key="rows.parquet", Body=rows.read_bytes())
    beside = write_parquet(tmp_path / "paths.parquet", table(path=[f"all/{name}.png" for name in IMAGES]))
    bucket.client.put_object(Bucket=bucket.name, Key="paths.parquet", Body=beside.read_bytes())
    bucket.client.put_object(Bucket=bucket.name, Key="a b.png", Body=png(9))
    spaced = write_parquet(tmp_path / "spaced.parquet", pa.table({"path": ["a b.png"]}))
    bucket.client.put_object(Bucket=bucket.name, Key="spaced.parquet", Body=spaced.read_bytes())
    assert found(bucket.uri("spaced.parquet")) == {"a b": png(9)}
    for key in ("all", "rows.parquet", "paths.parquet"):
        assert found(bucket.uri(key)) == IMAGES
    assert found(bucket.uri("all/image1.png")) == {"image1": IMAGES["image1"]}
    assert listing_of(bucket.uri("all")).ignored == {".md": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"\n\n", "names no image"),
        ("none.parquet", b"no table", "is no Parquet, or damaged"),
        ("none.arrow", b"no table", "is no Arrow, or damaged"),
        ("labels.parquet", pa.table({"label": ["nevus"]}), "has no images: a column of bytes"),
        ("words.parquet", pa.table({"image": ["nevus"]}), "has no images: a column of bytes"),
        ("pathless.parquet", pa.table({"path": pa.array([], pa.string())}), "holds no row"),
        ("numbers.parquet", pa.table({"file": [1, 2]}), "has no images: a column of bytes"),
        ("rowless.parquet", pa.table({"bytes": pa.array([], pa.binary())}), "holds no row"),
    ],
)
def test_what_gives_no_images_is_refused(name: str, content: bytes | pa.Table, message: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        pq.write_table(content, tmp_path / name)
    with pytest.raises(DataError, match=message):
        listing_of(tmp_path / name)


def test_a_pattern_that_matches_nothing_or_nothing_of_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="matches 0 files"):
        listing_of(tmp_path / "*.jpg")
    (tmp_path / "notes.md").write_text("text")
    with pytest.raises(DataError, match="matches 1 files, none of them an image"):
        listing_of(tmp_path / "*")


def test_archives_in_an_object_store_are_read_in_place(bucket: Bucket) -> None:
    for name, mode in (("shards/a.tar", "w"), ("shards/b.tar.gz", "w:gz")):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
            for image, data in IMAGES.items():
                info = tarfile.TarInfo(f"{Path(name).name[0]}{image}.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        bucket.client.put_object(Bucket=bucket.name, Key=name, Body=content.getvalue())
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for image, data in IMAGES.items():
            archive_file.writestr(f"deep/{image}.png", data)
    bucket.client.put_object(Bucket=bucket.name, Key="zips/one.zip", Body=content.getvalue())
    assert found(bucket.uri("zips/one.zip")) == IMAGES
    assert found(bucket.uri("shards/a.tar")) == {f"a{name}": data for name, data in IMAGES.items()}
    for pattern in ("shards/*.tar*", "**/*.tar*", "sh[a]rds/*"):
        assert set(found(bucket.uri(pattern))) == {f"{first}{name}" for name in IMAGES for first in "ab"}
    with pytest.raises(DataError, match="matches 0 objects"):
        listing_of(bucket.uri("shards/*.zip"))
    for name in ("missing.zip", "missing.tar"):
        with pytest.raises(DataError, match=rf"{name}.* does not exist"):
            listing_of(bucket.uri(name))


@pytest.mark.parametrize("whole", ["", "many folders", "no name"])
def test_a_prefix_is_told_of_folder_by_folder_in_order(
    whole: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["b.png", "c/1.png", "c/deep/2.png", "d.png", "g.png", "é f/3.png"]
    if whole == "many folders":
        monkeypatch.setattr(storage, "_MOST_FOLDERS", 1)
    elif whole:
        # It has a row all the same, of an object that cannot be read.
        keys.append("/z.png")
    prefix = f"tree {tmp_path.name}"
    for key in (*keys, ".hidden/4.png", "empty/notes.txt"):
        bucket.client.put_object(Bucket=bucket.name, Key=f"{prefix}/{key}", Body=b"")
    listings = list(stream_inputs([bucket.uri(quote(prefix) + "/")]))
    # Files on both sides of folders, and each folder, by itself; or all together.
    assert [listing.images for listing in listings] == ([len(keys)] if whole else [1, 2, 1, 0, 1, 1])
    listed = joined(listings)
    places = [bytes(name).decode().partition("?")[0] for name in listed.members["name"].to_pylist()]
    base = bucket.uri(quote(prefix)).partition("?")[0]
    expected = sorted(key.strip("/").split("/") for key in keys)
    assert [place.removeprefix(f"{base}/") for place in places] == [quote("/".join(parts)) for parts in expected]
    assert listed.ignored == {".txt": 1}


def test_a_pattern_of_objects(bucket: Bucket) -> None:
    for name, data in IMAGES.items():
        bucket.client.put_object(Bucket=bucket.name, Key=f"lesions/{name}.png", Body=data)
    assert set(found(bucket.uri("lesions/*[12].png"))) == {"image1", "image2"}


def test_a_store_that_cannot_be_reached_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_errors, "PAUSES", ())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    place = f"s3://bucket/a.png?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    with pytest.raises(StoreError, match="cannot be reached"):
        read(place)
