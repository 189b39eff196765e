"""Tars as they turn up: compressed, joined, cut short, with links in them; nothing of them is lost without a row."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dermaray.data.archive import list_members
from dermaray.data.members import Member, read_members
from dermaray.errors import DataError
from tests.archives import IMAGES, OTHERS, make_tar, make_tar_gz, png, read

Maker = Callable[[Path, dict[str, bytes]], Path]


def test_a_compressed_tar_is_one_row_of_unknown_length(tmp_path: Path) -> None:
    listing = list_members(make_tar_gz(tmp_path / "input.tar.gz", IMAGES | OTHERS))
    assert listing.images is None
    assert listing.members.num_rows == 1


@pytest.mark.parametrize("compression", ["", "gz"])
def test_tars_that_were_joined_are_read_to_the_end(compression: str, tmp_path: Path) -> None:
    for name in IMAGES:
        make_tar(tmp_path / Path(name).stem, {name: IMAGES[name]}, compression)
    (tmp_path / "input").write_bytes(b"".join((tmp_path / Path(name).stem).read_bytes() for name in IMAGES))
    assert [m.data for m in read(tmp_path / "input")] == list(IMAGES.values())


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_what_stands_behind_a_tar_is_told_of_where_it_could_hold_anything(compression: str, tmp_path: Path) -> None:
    source = make_tar(tmp_path / "input", IMAGES, compression)
    with source.open("ab") as file:
        file.write(b"a signature")
    assert [(m.data, m.error) for m in read(source)] == [(data, None) for data in IMAGES.values()]
    assert list_members(source).images == (None if compression else 3)
    with source.open("ab") as file:
        file.write(b"something as long as a header" * 40)
    check_start_and_loss(read(source), list(IMAGES.values()))


def check_start_and_loss(found: list[Member], start: list[bytes]) -> None:
    *before, lost = found
    assert [(m.data, m.error) for m in before] == [(data, None) for data in start]
    assert "the archive is damaged from here on" in str(lost.error)


@pytest.mark.parametrize("compression", ["", "gz"])
def test_an_empty_tar_before_another_hides_nothing(compression: str, tmp_path: Path) -> None:
    parts = [make_tar(tmp_path / f"{n}", files, compression).read_bytes() for n, files in enumerate(({}, IMAGES))]
    (tmp_path / "input").write_bytes(b"".join(parts))
    assert [m.data for m in read(tmp_path / "input")] == list(IMAGES.values())
    # The first header is zeros now, and what follows it is no header.
    whole = make_tar(tmp_path / "whole", IMAGES).read_bytes()
    zeroed = bytes(512) + whole[512:]
    (tmp_path / "input").write_bytes(gzip.compress(zeroed) if compression else zeroed)
    with pytest.raises(DataError, match=r"is a damaged archive|is neither a zip nor a tar"):
        list_members(tmp_path / "input")


DAMAGES: dict[str, Callable[[bytearray, int], bytes]] = {
    "a page of zeros over a header": lambda data, at: bytes(data[:at] + bytes(1024) + data[at + 1024 :]),
    "a header with a bit changed": lambda data, at: bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]),
    "zeros from there on": lambda data, at: bytes(data[:at]) + bytes(5 << 20),
    "cut where a member ends": lambda data, at: bytes(data[:at]),
}


@pytest.mark.parametrize("compression", ["", "gz"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_however_a_tar_is_damaged_one_row_tells(kind: str, compression: str, tmp_path: Path) -> None:
    whole = bytearray(make_tar(tmp_path / "whole", IMAGES).read_bytes())
    second = 512 + -(-len(IMAGES["a.png"]) // 512) * 512
    damaged = DAMAGES[kind](whole, second)
    (tmp_path / "input").write_bytes(gzip.compress(damaged) if compression else damaged)
    check_start_and_loss(read(tmp_path / "input"), [IMAGES["a.png"]])


def test_of_a_joined_tar_whose_first_header_is_damaged_one_row_tells(tmp_path: Path) -> None:
    whole = bytearray(make_tar(tmp_path / "input", IMAGES).read_bytes())
    whole[0] ^= 1
    (tmp_path / "joined").write_bytes(make_tar(tmp_path / "first", {"z.png": png(3)}).read_bytes() + whole)
    check_start_and_loss(read(tmp_path / "joined"), [png(3)])


def test_a_plain_tar_may_begin_with_any_name(tmp_path: Path) -> None:
    name = "BZh_clinic/a.png"
    source = make_tar(tmp_path / "input", {name: png(0), "b.png": png(1)})
    with source.open("r+b") as file:
        # So that it is read from its start.
        file.truncate(source.stat().st_size - 6000)
    first, *_ = read(source)
    assert first.uri.partition("::")[2] == name


def test_a_hard_link_is_the_file_that_came_before_it(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "input", "w") as file:
        for name, data in (("a.png", png(0)), ("link.png", None), ("a.png", png(1)), ("later.png", None)):
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.LNKTYPE, "a.png"
            info.size = len(data or b"")
            file.addfile(info, io.BytesIO(data or b""))
    assert [m.data for m in read(tmp_path / "input")] == [png(0), png(0), png(1), png(1)]


@pytest.mark.parametrize("compression", ["", "gz"])
def test_what_is_no_file_in_a_tar_has_a_row_as_well(compression: str, tmp_path: Path) -> None:
    source = tmp_path / "input"
    entries = {
        "folder.png": (tarfile.DIRTYPE, ""),
        "twin.png": (tarfile.LNKTYPE, "a.png"),
        "x/twin of twin.png": (tarfile.LNKTYPE, "twin.png"),
        "x/out.png": (tarfile.LNKTYPE, "/etc/passwd"),
        "symbolic.png": (tarfile.SYMTYPE, "a.png"),
        "pipe.png": (tarfile.FIFOTYPE, ""),
        "latest": (tarfile.SYMTYPE, "a.png"),
    }
    with tarfile.open(source, f"w:{compression}") as file:
        info = tarfile.TarInfo("a.png")
        info.size = len(IMAGES["a.png"])
        file.addfile(info, io.BytesIO(IMAGES["a.png"]))
        for name, (kind, target) in entries.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            file.addfile(info)
    found = {m.uri.partition("::")[2]: m for m in read(source)}
    assert list(found) == ["a.png", "twin.png", "x/twin of twin.png", "x/out.png", "symbolic.png", "pipe.png"]
    assert [found[name].image_id for name in ("x/out.png", "pipe.png")] == ["out", "pipe"]
    problems = {name: str(member.error) for name, member in found.items() if member.error}
    expected = {
        "twin.png": "a hard link to a.png",
        "x/twin of twin.png": "a hard link to twin.png",
        "x/out.png": "a hard link to /etc/passwd",
        "symbolic.png": "a symbolic link to a.png",
        "pipe.png": "a named pipe",
    }
    if not compression:
        for name in ("twin.png", "x/twin of twin.png"):
            assert found[name].data == IMAGES["a.png"]
            del expected[name]
        assert list_members(source).ignored == {"latest": 1}
    assert problems == {name: f"{what} in the archive, not a file" for name, what in expected.items()}


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_of_streams_that_follow_each_other_in_one_file_all_are_read(
    compress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """As programs write them that compress on several cores, padded too; cut within an image, and between two."""
    whole = make_tar(tmp_path / "input.tar", IMAGES).read_bytes()
    between = 512 + -(-len(IMAGES["a.png"]) // 512) * 512
    for cut in (1200, between):
        first, second = compress(whole[:cut]), compress(whole[cut:])
        for padding in (b"", bytes(4), bytes(70_000), compress(b"")):
            (tmp_path / "input").write_bytes(first + padding + second + padding)
            assert [m.data for m in read(tmp_path / "input")] == list(IMAGES.values())
    # Of the second the start alone, or with a byte changed.
    for damaged in (second[:-40], second[:60] + bytes([second[60] ^ 255]) + second[61:]):
        (tmp_path / "input").write_bytes(first + damaged)
        before, *_, last = read(tmp_path / "input")
        assert before.data == IMAGES["a.png"]
        assert "the archive is damaged from here on" in str(last.error)


def test_a_tar_that_lost_its_end_after_it_was_listed(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "input.tar", IMAGES)
    rows = list_members(path).members
    path.write_bytes(path.read_bytes()[: 512 + len(IMAGES["a.png"]) + 100])
    assert [m.error and m.error.reason for m in read_members(rows)] == [None, "unreadable", "unreadable"]


@pytest.mark.parametrize("make", [make_tar, make_tar_gz])
def test_of_a_tar_that_is_cut_short_the_start_is_read_and_the_loss_is_reported(make: Maker, tmp_path: Path) -> None:
    path = make(tmp_path / "input", IMAGES)
    path.write_bytes(path.read_bytes()[: 512 + len(IMAGES["a.png"]) + 700])
    first, *_, last = read(path)
    assert first.data == IMAGES["a.png"]
    assert last.error is not None
    assert last.error.reason == "unreadable"


def test_of_a_tar_that_is_damaged_in_its_middle_one_row_tells(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "input.tar", IMAGES)
    second = list_members(path).members["offset"][1].as_py()
    data = bytearray(path.read_bytes())
    data[second - 512 : second] = b"x" * 512
    path.write_bytes(data)
    first, lost = read(path)
    assert first.data == IMAGES["a.png"]
    assert "damaged from here on" in str(lost.error)


def tar_of(*headers: tarfile.TarInfo) -> bytes:
    """Return a tar of one image and then of headers alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as file:
        info = tarfile.TarInfo("a.png")
        info.size = len(IMAGES["a.png"])
        file.addfile(info, io.BytesIO(IMAGES["a.png"]))
        whole = buffer.getvalue()
    return whole + b"".join(info.tobuf(tarfile.GNU_FORMAT) for info in headers) + bytes(1024)


@pytest.mark.parametrize(
    ("size", "kind"),
    [(-512, tarfile.REGTYPE), (2**60, tarfile.XHDTYPE), (2**63, tarfile.GNUTYPE_LONGNAME), (-512, tarfile.XHDTYPE)],
)
def test_of_a_tar_with_absurd_sizes_one_row_tells(size: int, kind: bytes, tmp_path: Path) -> None:
    bad = tarfile.TarInfo("b.png")
    bad.size, bad.type = size, kind
    (tmp_path / "input.tar").write_bytes(tar_of(bad))
    first, lost = read(tmp_path / "input.tar")
    assert first.data == IMAGES["a.png"]
    assert "damaged from here on" in str(lost.error)
    (tmp_path / "none.tar").write_bytes(bad.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        list_members(tmp_path / "none.tar")
