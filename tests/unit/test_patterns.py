"""Patterns of files: each file that matches once, and what is passed over is counted."""

import errno
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermaray.data.archive import joined
from dermaray.data.inputs import stream_inputs
from dermaray.data.members import read_members
from dermaray.errors import DataError
from tests.archives import IMAGES, OTHERS, make_folder, png


def uris(place: Path) -> list[str]:
    listing = joined(stream_inputs([str(place)]))
    return [member.uri for member in read_members(listing.members)]


def test_a_link_that_leads_back_doubles_nothing(tmp_path: Path) -> None:
    folder, elsewhere = make_folder(tmp_path / "folder", IMAGES), make_folder(tmp_path / "elsewhere", {"z.png": png(3)})
    (folder / "loop").symlink_to(folder)
    (folder / "zlink").symlink_to(elsewhere)
    found = uris(folder / "**" / "*.[pP][nN][gG]")
    assert sorted(Path(uri).name for uri in found) == ["a.png", "b.PNG", "c.png", "z.png"]


def test_folders_that_match_are_counted(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", IMAGES | OTHERS)
    assert joined(stream_inputs([str(folder / "*")])).ignored == {".txt": 1, "README": 1, "nested/": 1}


def test_a_link_to_nothing_has_a_row_as_it_has_in_a_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", {"a.png": png(1)})
    (folder / "gone.png").symlink_to(tmp_path / "annex.png")
    (folder / "round.png").symlink_to("round.png")
    assert uris(folder / "*.png") == [str(folder / name) for name in ("a.png", "gone.png", "round.png")]
    assert uris(folder / "*.png") == uris(folder)


@pytest.mark.parametrize(
    ("pattern", "images", "lost"),
    [
        ("**/*.png", ["a.png", "nested/c.png"], ["locked", "nested/locked"]),
        ("*/*.png", ["nested/c.png"], ["locked"]),
        ("nested/**", ["nested/c.png"], ["nested/locked"]),
        ("*/locked/*", [], ["nested/locked"]),
        ("*.png", ["a.png"], []),
    ],
)
def test_a_folder_that_cannot_be_listed_has_a_row(
    pattern: str, images: list[str], lost: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = ("a.png", "locked/b.png", "nested/c.png", "nested/locked/d.png")
    folder = make_folder(tmp_path / "folder", {name: png(0) for name in inside})
    lock(monkeypatch, "locked")
    if not images:
        with pytest.raises(DataError, match=r"matches 0 files.*locked cannot be listed: Permission denied"):
            list(stream_inputs([str(folder / pattern)]))
        return
    members = list(read_members(joined(stream_inputs([str(folder / pattern)])).members))
    assert [member.uri for member in members] == [str(folder / name) for name in images + lost]
    assert all("cannot be listed: Permission denied" in str(member.error) for member in members[len(images) :])


def lock(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Refuse to list folders of a name, as the system does to all but root."""
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)


def test_a_table_that_is_called_manifest_hides_no_images(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", IMAGES)
    pq.write_table(pa.table({"path": ["a.png"]}), folder / "manifest.parquet")
    listing = joined(stream_inputs([str(folder)]))
    assert (listing.images, listing.ignored) == (3, {".parquet": 1})


def test_links_in_a_folder_are_told_of_where_they_lead_out_of_it(tmp_path: Path) -> None:
    folder, elsewhere = make_folder(tmp_path / "folder", IMAGES), make_folder(tmp_path / "elsewhere", {"z.png": png(3)})
    (folder / "latest").symlink_to("nested")
    (folder / "out").symlink_to(elsewhere)
    listing = joined(stream_inputs([str(folder)]))
    *images, lost = read_members(listing.members)
    assert [image.data for image in images] == list(IMAGES.values())
    assert (lost.uri, str(lost.error)[:18]) == (str(folder / "out"), "a link to a folder")
    assert listing.ignored == {"latest": 1}


def test_a_folder_without_a_manifest_may_be_called_anything(tmp_path: Path) -> None:
    folder = make_folder(Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xe4sionen")), {"a.png": png(0)})
    (listing,) = stream_inputs([str(folder)])
    assert listing.images == 1


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", {"manifest.parquet": b"PAR1 no more"})
    with pytest.raises(DataError, match=r"manifest\.parquet"):
        list(stream_inputs([str(folder)]))


def test_a_pattern_of_folders_alone_says_what_to_do(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", {"nested/a.png": png(0)})
    with pytest.raises(DataError, match=r"matches 0 files, .*, and 1 folders: name them, or use \*\*"):
        list(stream_inputs([str(folder / "*")]))
