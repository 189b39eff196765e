"""The folder of a scoring run: what is there is whole, belongs to one run, and is gone on with."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dermaray.data.members import MEMBER_SCHEMA
from dermaray.errors import OutputError
from dermaray.scoring.ledger import SUMMARY, TABLE, Ledger
from dermaray.scoring.shards import SHARD_IMAGES, cut, listing_digest, size_of
from tests.object_store import Bucket

JOB: dict[str, Any] = {"inputs": "a", "model": "b", "engine": "litert", "shards": 3}


def rows(*ids: str) -> pa.Table:
    return pa.table({"image_id": list(ids)})


@pytest.fixture(params=["folder", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "out")
    made: Bucket = request.getfixturevalue("bucket")
    # The server keeps what earlier tests have written.
    return made.uri(tmp_path.name)


def ids(ledger: Ledger) -> list[str]:
    return [name for part in ledger.rows(["image_id"]) for name in part["image_id"].to_pylist()]


def test_a_run_is_gone_on_with_until_it_is_complete(place: str) -> None:
    with Ledger.open(place, JOB, new=False) as ledger:
        ledger.begin()
        assert ledger.done() == set()
        ledger.publish(2, rows("e"))
        ledger.publish(0, rows("a", "b"))
    with Ledger.open(place, JOB, new=False) as ledger:
        assert (ledger.done(), ledger.complete) == ({0, 2}, False)
        ledger.publish(1, rows())
        assert ids(ledger) == ["a", "b", "e"]
        with ledger.writing(TABLE) as file:
            file.write(b"text")
        ledger.succeed()
    with Ledger.open(place, JOB, new=False) as ledger:
        assert ledger.complete


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"inputs": "c"}, "other inputs, or of these before they changed"),
        ({"model": "c"}, "another model"),
        ({"engine": "keras"}, "another engine, litert"),
        ({"shards": 4}, "another version of dermaray"),
    ],
)
def test_another_run_is_refused_unless_it_begins_anew(change: dict[str, Any], what: str, place: str) -> None:
    with Ledger.open(place, JOB, new=False) as ledger:
        ledger.begin()
        ledger.publish(0, rows("a"))
    with (
        pytest.raises(OutputError, match=f"holds a run that has not ended, of {what}"),
        Ledger.open(place, JOB | change, new=False),
    ):
        pass
    with Ledger.open(place, JOB | change, new=True) as ledger:
        assert ledger.done() == set()
    # Whoever only looked has lost nothing.
    with Ledger.open(place, JOB, new=False) as ledger:
        assert ledger.done() == {0}
    with Ledger.open(place, JOB | change, new=True) as ledger:
        ledger.begin()
    with Ledger.open(place, JOB | change, new=False) as ledger:
        assert ledger.done() == set()


def test_what_no_run_wrote_is_left_alone(place: str) -> None:
    with Ledger.open(place, JOB, new=False) as ledger:
        ledger.tell(SUMMARY, {})
    for new in (False, True):
        with (
            pytest.raises(OutputError, match="an earlier result of another kind"),
            Ledger.open(place, JOB, new=new),
        ):
            pass
    assert ledger.holds(SUMMARY)


def test_a_file_that_was_not_written_to_its_end_is_not_there(place: str) -> None:
    with Ledger.open(place, JOB, new=False) as ledger:
        ledger.begin()
        with suppress(KeyboardInterrupt), ledger.writing(TABLE) as file:
            file.write(b"image_id")
            raise KeyboardInterrupt
        assert not ledger.holds(TABLE)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for new in (False, True):
        with (
            pytest.raises(OutputError, match="holds files that dermaray did not write"),
            Ledger.open(str(tmp_path), JOB, new=new),
        ):
            pass
    (tmp_path / ".dermaray").touch()
    for new in (False, True):
        with (
            pytest.raises(OutputError, match="an earlier result of another kind"),
            Ledger.open(str(tmp_path), JOB, new=new),
        ):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".dermaray", "notes.txt"]


def test_two_processes_are_kept_apart(tmp_path: Path) -> None:
    with (
        Ledger.open(str(tmp_path / "out"), JOB, new=False),
        pytest.raises(OutputError, match="another process is at work"),
        Ledger.open(str(tmp_path / "out"), JOB, new=False),
    ):
        pass


def test_what_a_kill_leaves_behind_does_not_count(tmp_path: Path) -> None:
    with Ledger.open(str(tmp_path), JOB, new=False) as ledger:
        ledger.begin()
        ledger.publish(0, rows("a"))
    (tmp_path / "scores.parquet" / ".part-00001.parquet.partial").write_bytes(b"PAR1")
    (tmp_path / ".scores.csv.partial").write_bytes(b"image_id")
    with Ledger.open(str(tmp_path), JOB, new=False) as ledger:
        assert ledger.done() == {0}
        assert ids(ledger) == ["a"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, message in ((tmp_path / "file", "is a file"), ("/proc/nowhere", "cannot write to /proc/nowhere")):
        with pytest.raises(OutputError, match=message), Ledger.open(str(place), JOB, new=False):
            pass


def test_it_clears_its_own_alone(place: str) -> None:
    with Ledger.open(place, JOB, new=False) as ledger:
        ledger.begin()
        ledger.publish(0, rows("a"))
        ledger.succeed()
        assert ledger.complete
        ledger.tell("notes.json", {})
        ledger.clear()
        assert not ledger.complete
        assert ledger.done() == set()
        assert ledger.holds("notes.json")


def members(*kinds: str) -> pa.Table:
    values = [
        {"archive": "/x", "kind": kind, "name": str(position).encode(), "offset": 0, "size": 1}
        for position, kind in enumerate(kinds)
    ]
    return pa.Table.from_pylist(values, MEMBER_SCHEMA)


def test_shards_hold_every_image_once_and_what_is_many_images_stands_alone() -> None:
    count = 2 * SHARD_IMAGES + 1
    listing = members(*["folder"] * count, "table", "tar_stream")
    shards = cut(listing)
    assert [size_of(shard) for shard in shards] == [SHARD_IMAGES, SHARD_IMAGES, 1, 1, None]
    assert pa.concat_tables(shards).equals(listing)


def test_a_listing_that_has_changed_has_another_digest(tmp_path: Path) -> None:
    assert listing_digest(members("folder", "zip")) == listing_digest(members("folder", "zip"))
    assert listing_digest(members("folder", "zip")) != listing_digest(members("folder", "folder"))
    archive = tmp_path / "archive.zip"
    archive.write_bytes(b"one")
    row = {"archive": str(archive), "kind": "zip", "name": b"a.jpg", "offset": 0, "size": 1}
    listing = pa.Table.from_pylist([row], MEMBER_SCHEMA)
    before = listing_digest(listing)
    archive.write_bytes(b"another")
    assert listing_digest(listing) != before
