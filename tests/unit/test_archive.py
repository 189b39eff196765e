import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dermaray.data import archive
from dermaray.data import members as members_module
from dermaray.data.archive import files_listing, joined, list_members, stream_members
from dermaray.data.members import MEMBER_SCHEMA, Member, read_members
from dermaray.errors import DataError
from tests.archives import IMAGES, OTHERS, make_folder, make_tar, make_tar_gz, make_zip, png, read

Maker = Callable[[Path, dict[str, bytes]], Path]


LISTED = [make_folder, make_zip, make_tar]


@pytest.mark.parametrize("make", [*LISTED, make_tar_gz])
def test_every_kind_gives_the_bytes_that_were_put_in(make: Maker, tmp_path: Path) -> None:
    members = read(make(tmp_path / "input", IMAGES | OTHERS))
    assert {m.image_id: m.data for m in members} == {Path(name).stem: data for name, data in IMAGES.items()}
    assert len({m.uri for m in members}) == len(members) == 3
    assert [m.error for m in members] == [None] * 3


@pytest.mark.parametrize("make", LISTED)
def test_other_files_are_passed_over_and_counted(make: Maker, tmp_path: Path) -> None:
    listing = list_members(make(tmp_path / "input", IMAGES | OTHERS))
    assert listing.images == 3
    assert listing.ignored == {".txt": 2, ".csv": 1, "README": 1}
    assert listing.members.schema == MEMBER_SCHEMA


def test_a_folder_is_told_of_in_parts_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.png", "b/c.png", "b/d/e.png", "b/f.png", "b.png", "g/h.png"]
    folder = make_folder(tmp_path / "folder", dict.fromkeys(names, b"") | OTHERS)
    (folder / "link").symlink_to(folder / "b")
    (folder / "loop").symlink_to(folder / "loop")
    whole = list_members(folder)
    # Links to folders are not followed.
    assert [bytes(name).decode() for name in whole.members["name"].to_pylist()] == sorted(names, key=Path)
    monkeypatch.setattr(archive, "_TOGETHER", 2)
    parts = list(stream_members(folder))
    assert [part.images for part in parts] == [2, 2, 2, 0]
    assert joined(parts).members.equals(whole.members)
    assert joined(parts).ignored == whole.ignored == {".txt": 2, ".csv": 1, "README": 1, "loop": 1, "link": 1}


def test_uris_say_where_an_image_lies(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", IMAGES)
    packed = make_zip(tmp_path / "packed.zip", IMAGES)
    assert [m.uri for m in read(folder)] == [str(folder / name) for name in sorted(IMAGES)]
    assert [m.uri for m in read(packed)] == [f"{packed}::{name}" for name in IMAGES]


@pytest.mark.parametrize("make", LISTED)
def test_rows_can_be_read_in_any_order_and_number(make: Maker, tmp_path: Path) -> None:
    rows = list_members(make(tmp_path / "input", IMAGES)).members
    every = list(read_members(rows))
    assert list(read_members(rows.take([2, 0]))) == [every[2], every[0]]
    assert list(read_members(rows.slice(0, 0))) == []


def test_files_known_by_path_keep_their_order(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", IMAGES)
    paths = [str(folder / name) for name in reversed(IMAGES)]
    assert [m.data for m in read_members(files_listing(paths))] == list(reversed(IMAGES.values()))


def test_a_single_image_is_an_input(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(png(7))
    assert read(path) == [Member("one", str(path), png(7))]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_file_name_in_no_encoding_is_read(tmp_path: Path) -> None:
    make_folder(tmp_path / "folder", IMAGES)
    with open(os.path.join(os.fsencode(tmp_path / "folder"), b"caf\xe9.png"), "wb") as file:
        file.write(png(3))
    members = {m.image_id: m for m in read(tmp_path / "folder")}
    assert members["caf\\xe9"].data == png(3)
    assert all(m.uri.encode("utf-8") for m in members.values())


def test_names_in_a_zip_that_claim_an_encoding_that_they_are_not_in(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in (("caf\u00e9.png", b"one"), ("na\u00efve.png", b"two"), ("plain.png", b"three")):
            archive.writestr(name, data)
    # The first name, in both places, as the encoding before UTF-8 had it and as long as before.
    written = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(written.replace("caf\u00e9".encode(), b"cafe\xe9"))
    members = read(tmp_path / "a.zip")
    assert [member.image_id for member in members] == ["cafe\u0398", "na\u00efve", "plain"]
    assert [member.data for member in members] == [b"one", b"two", b"three"]


def test_names_in_a_zip_of_apples_are_what_they_are(tmp_path: Path) -> None:
    make_zip(tmp_path / "input.zip", {"Lision.png": png(0)})
    data = (tmp_path / "input.zip").read_bytes().replace(b"Lision", "Läson".encode())
    (tmp_path / "input.zip").write_bytes(data)
    (member,) = read(tmp_path / "input.zip")
    assert (member.image_id, member.data) == ("Läson", png(0))


def test_an_image_id_has_no_folder_of_windows(tmp_path: Path) -> None:
    (member,) = read(make_zip(tmp_path / "input.zip", {"scans\\first.png": png(0)}))
    assert member.image_id == "first"
    assert member.uri.endswith("::scans\\first.png")


def test_what_ends_with_a_zip_is_what_it_begins_as(tmp_path: Path) -> None:
    table = make_zip(tmp_path / "labels.xlsx", {"xl/media/logo.png": png(9)}).read_bytes()
    packed = make_tar(tmp_path / "input.tar", IMAGES | {"z.xlsx": table})
    assert [m.data for m in read(packed)] == list(IMAGES.values())
    photo = tmp_path / "photo.png"
    photo.write_bytes(png(0) + table)
    assert [m.data for m in read(photo)] == [photo.read_bytes()]


def test_of_zips_that_were_joined_one_row_tells(tmp_path: Path) -> None:
    parts = [make_zip(tmp_path / f"{n}.zip", {f"{n}.png": png(n)}).read_bytes() for n in range(2)]
    (tmp_path / "input.zip").write_bytes(b"".join(parts))
    last, lost = read(tmp_path / "input.zip")
    assert last.data == png(1)
    assert "another zip stands before the last one" in str(lost.error)


def test_images_of_one_name_in_a_zip_are_both_read(tmp_path: Path) -> None:
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.png", png(0))
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a.png", png(1))
    assert [m.data for m in read(path)] == [png(0), png(1)]


def damage(path: Path, needle: bytes) -> None:
    data = path.read_bytes()
    assert data.count(needle) == 1
    path.write_bytes(data.replace(needle, bytes(255 - byte for byte in needle)))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_corrupted_member_is_reported_and_the_others_are_read(compression: int, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "damaged.zip", IMAGES, compression)
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("nested/b.PNG")
        start = info.header_offset + 30 + len(info.filename)
        middle = path.read_bytes()[start : start + info.compress_size][info.compress_size // 2 :][:24]
    damage(path, middle)
    first, second, third = read(path)
    assert (first.data, third.data) == (IMAGES["a.png"], IMAGES["nested/deeper/c.png"])
    assert second.data == b""
    assert second.error is not None
    assert second.error.reason == "unreadable"


def test_an_encrypted_member_is_reported_and_the_others_are_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "secret.zip", IMAGES)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        header = file.getinfo("a.png").header_offset
    # The lowest bit of the flags says encrypted, in the member's own header and in the directory's.
    data[header + 6] |= 1
    data[data.index(b"a.png", data.index(b"PK\x01\x02")) - 46 + 8] |= 1
    path.write_bytes(data)
    first, *others = read(path)
    assert first.error is not None
    assert "encrypted" in str(first.error)
    assert [m.error for m in others] == [None, None]


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", IMAGES)
    (folder / "broken.png").symlink_to(folder / "nowhere.png")
    (folder / "device.png").symlink_to(os.devnull)
    rows = list_members(folder).members
    (folder / "a.png").unlink()
    reasons = {m.image_id: m.error and m.error.reason for m in read_members(rows)}
    assert reasons == {"a": "unreadable", "b": None, "broken": "unreadable", "c": None, "device": "unreadable"}


@pytest.mark.parametrize("make", [*LISTED, make_tar_gz])
def test_of_a_huge_file_no_more_is_read_than_shows_that_it_is_too_large(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members_module, "MAX_BYTES", 100)
    members = read(make(tmp_path / "input", IMAGES))
    assert [len(m.data) for m in members] == [101] * 3


@pytest.mark.parametrize("make", LISTED)
def test_an_input_without_images(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no image. 4 files of other kinds are in it. Images end in .jpg"):
        list_members(make(tmp_path / "others", OTHERS))
    with pytest.raises(DataError, match=r"empty holds no image. Images end in .jpg"):
        list_members(make(tmp_path / "empty", {}))


def test_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none does not exist. A folder, a zip or a tar of images was expected"):
        list_members(tmp_path / "none")


@pytest.mark.parametrize("data", [b"just text\n", b""])
def test_a_file_of_another_kind(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"notes.txt is neither a zip nor a tar nor an image"):
        list_members(path)


@pytest.mark.parametrize("extra", [1024, 60_000])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_stands_before_a_zip_or_in_its_headers_is_passed_over(
    compression: int, extra: int, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as file:
        info = zipfile.ZipInfo("a.png")
        info.compress_type = compression
        info.extra = b"\xfe\xca" + extra.to_bytes(2, "little") + bytes(extra)
        file.writestr(info, IMAGES["a.png"])
        with file.open("b.png", "w", force_zip64=True) as streamed:
            streamed.write(IMAGES["nested/b.PNG"])
    path = tmp_path / "input.zip"
    path.write_bytes(b"#!/bin/sh\n" + packed.getvalue())
    assert [member.data for member in read(path)] == [IMAGES["a.png"], IMAGES["nested/b.PNG"]]


def test_a_member_that_lies_where_no_file_can_reach_costs_no_other(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("a.png", b"a")
        archive.writestr("b.png", b"b")
        archive.infolist()[1].header_offset = 1 << 63
    there, lost = read(tmp_path / "odd.zip")
    assert (there.data, lost.error and lost.error.reason) == (b"a", "unreadable")


def test_an_encrypted_member_is_reported(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "input.zip", IMAGES)
    data = bytearray(path.read_bytes())
    start = list_members(path).members["offset"][0].as_py()
    data[start + 6] |= 1
    path.write_bytes(data)
    assert "encrypted" in str(read(path)[0].error)


def test_a_folder_name_in_no_encoding_is_read(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xe4sionen"))
    folder.mkdir()
    (folder / "a.png").write_bytes(IMAGES["a.png"])
    make_zip(folder / "input.zip", IMAGES)
    for members in (read(folder), read(folder / "a.png"), list(read_members(files_listing([str(folder / "a.png")])))):
        (member,) = members
        assert (member.image_id, member.data) == ("a", IMAGES["a.png"])
        assert member.uri == f"{tmp_path}/l\\xe4sionen/a.png"
    make_tar(folder / "input.tar", IMAGES)
    (folder / "input.zip").rename(folder / "input.png")
    for name in ("input.png", "input.tar"):
        with pytest.raises(DataError, match=rf"l\\xe4sionen/{name}: the name is not valid UTF-8"):
            list_members(folder / name)
