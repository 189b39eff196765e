"""The shards of a run: cut as the listing comes, the same from the same inputs, and told from those of others."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from dermaray.data.archive import Listing
from dermaray.data.members import MEMBER_SCHEMA
from dermaray.errors import DataError
from dermaray.scoring import shards
from dermaray.scoring.listed import Listed
from dermaray.scoring.shards import SHARD_IMAGES, cut, size_of


def members(*kinds: str, archive: str = "/x") -> pa.Table:
    values = [
        {"archive": archive, "kind": kind, "name": str(position).encode(), "offset": 0, "size": 1}
        for position, kind in enumerate(kinds)
    ]
    return pa.Table.from_pylist(values, MEMBER_SCHEMA)


def digest(*tables: pa.Table) -> str:
    listed = Listed(Listing(table, len(table), {}) for table in tables)
    listed.wait()
    return listed.digest


def test_shards_hold_every_image_once_and_what_is_many_images_stands_alone() -> None:
    count = 2 * SHARD_IMAGES + 1
    listing = members(*["folder"] * count, "table", "tar_stream")
    found = list(cut([listing]))
    assert [size_of(shard) for shard in found] == [SHARD_IMAGES, SHARD_IMAGES, 1, None, 1]
    assert pa.concat_tables(found).sort_by("name").equals(listing.sort_by("name"))


def test_shards_are_the_same_however_the_listing_comes() -> None:
    listing = members(*["folder"] * 3000, "table", *["zip"] * 3000, "tar_stream")
    parts = [listing.slice(start, 700) for start in range(0, len(listing), 700)]
    parts = [part for full in parts for part in (full.slice(0, 0), full)]
    whole = list(cut([listing]))
    assert [shard.to_pylist() for shard in cut(parts)] == [shard.to_pylist() for shard in whole]
    assert digest(*parts) == digest(listing)


def test_a_listing_that_has_changed_has_another_digest(tmp_path: Path) -> None:
    assert digest(members("folder", "folder")) != digest(members("folder"))
    # Also of a shard that is the same, where one before it is not.
    assert digest(members("table", "table")) != digest(members("table"), members("tar_stream"))
    archive = tmp_path / "archive.zip"
    archive.write_bytes(b"one")
    listing = members("zip", archive=str(archive))
    before = digest(listing)
    archive.write_bytes(b"another")
    assert digest(listing) != before


def test_what_is_known_is_there_while_the_rest_is_listed() -> None:
    go_on = threading.Event()

    def slow() -> Iterator[Listing]:
        yield Listing(members(*["folder"] * (SHARD_IMAGES + 1)), SHARD_IMAGES + 1, {".txt": 1})
        go_on.wait()
        yield Listing(members("tar_stream"), None, {".txt": 2})

    listed = Listed(slow())
    assert listed.wait(1) == 1
    assert listed.wait(2, seconds=0.01) == 1
    assert (listed.ended, listed.images) == (False, None)
    assert listed.digest == listed.digests[0]
    go_on.set()
    assert listed.wait() == 3
    assert (listed.ended, listed.images, listed.ignored) == (True, None, {".txt": 3})
    assert len(set(listed.digests)) == len(listed.shards) == 3


@pytest.mark.parametrize("error", [DataError("it is damaged further on"), PermissionError("it is damaged further on")])
def test_what_ends_the_listing_is_told_and_what_was_known_stays(error: Exception) -> None:
    def broken() -> Iterator[Listing]:
        yield Listing(members("table"), 1, {})
        raise error

    listed = Listed(broken())
    with pytest.raises(DataError, match="damaged further on"):
        listed.wait()
    assert not listed.ended
    assert len(listed.shards) == len(listed.digests) == 1


def test_an_archive_of_many_shards_is_asked_for_its_size_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(shards, "stamp", lambda archive: asked.append(archive) or "")
    digest(members(*["table"] * 5, archive="/a"), members("zip", archive="/b"))
    assert asked == ["/a", "/b"]
