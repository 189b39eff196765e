"""The folder of a scoring run: what is there is whole, belongs to one run, and is gone on with."""

import json
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest

from dermaray.data import store_errors
from dermaray.errors import OutputError
from dermaray.scoring.ledger import RUN, SUMMARY, TABLE, Ledger
from dermaray.scoring.listed import Listed
from tests.object_store import Bucket

JOB: dict[str, Any] = {"model": "b", "engine": "litert"}


class Inputs(Listed):
    """Shards that are known by their digests alone."""

    def __init__(self, *digests: str, ended: bool = True) -> None:
        self.digests = list(digests)
        self.ended = ended

    def wait(self, count: float = float("inf"), seconds: float | None = None) -> int:
        assert self.ended or count <= len(self.digests)
        return len(self.digests)


INPUTS = Inputs("one", "two", "three")


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
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        ledger.begin()
        assert ledger.done() == set()
        ledger.publish(2, rows("e"))
        ledger.publish(0, rows("a", "b"))
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        assert (ledger.done(), ledger.complete) == ({0, 2}, False)
        ledger.publish(1, rows())
        assert ids(ledger) == ["a", "b", "e"]
        with ledger.writing(TABLE) as file:
            file.write(b"text")
        ledger.succeed()
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        assert ledger.complete


@pytest.mark.parametrize(
    ("change", "inputs", "what"),
    [
        ({}, Inputs("one", "two", "four"), "other inputs, or of these before they changed"),
        ({}, Inputs("one", "two"), "other inputs, or of these before they changed"),
        ({"model": "c"}, INPUTS, "another model"),
        ({"engine": "keras"}, INPUTS, "another engine, litert"),
        ({"format_version": 0}, INPUTS, "another version of dermaray"),
    ],
)
def test_another_run_is_refused_unless_it_begins_anew(
    change: dict[str, Any], inputs: Inputs, what: str, place: str
) -> None:
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        ledger.begin()
        ledger.publish(0, rows("a"))
    with (
        pytest.raises(OutputError, match=f"holds a run that has not ended, of {what}"),
        Ledger.open(place, JOB | change, inputs, new=False),
    ):
        pass
    with Ledger.open(place, JOB | change, inputs, new=True) as ledger:
        assert ledger.done() == set()
    # Whoever only looked has lost nothing.
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        assert ledger.done() == {0}
    with Ledger.open(place, JOB | change, inputs, new=True) as ledger:
        ledger.begin()
    with Ledger.open(place, JOB | change, inputs, new=False) as ledger:
        assert ledger.done() == set()


OTHERS = "of other inputs, or of these before they changed"


def test_a_run_that_was_killed_while_it_listed_is_known_by_what_it_scored(tmp_path: Path) -> None:
    place = str(tmp_path / "out")
    with Ledger.open(place, JOB, Inputs("one", "two", ended=False), new=False) as ledger:
        ledger.begin()
        ledger.publish(1, rows("b"))
    for others in (Inputs("one", "four", "three"), Inputs("one")):
        with pytest.raises(OutputError, match=OTHERS), Ledger.open(place, JOB, others, new=False):
            pass
    inputs = Inputs("one", "two", ended=False)
    with Ledger.open(place, JOB, inputs, new=False) as ledger:
        ledger.begin()
        assert ledger.done() == {1}
        inputs.digests, inputs.ended = INPUTS.digests, True
        ledger.note_inputs()
    assert json.loads((tmp_path / "out" / RUN).read_text())["inputs"] == "three"


def test_inputs_that_end_otherwise_are_refused_when_that_is_known(place: str) -> None:
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        ledger.begin()
        ledger.publish(0, rows("a"))
    inputs = Inputs("one", "two", ended=False)
    with Ledger.open(place, JOB, inputs, new=False) as ledger:
        ledger.begin()
        ledger.note_inputs()
        inputs.ended = True
        with pytest.raises(OutputError, match=OTHERS):
            ledger.note_inputs()
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        ledger.succeed()
    with pytest.raises(OutputError, match=f"an earlier result {OTHERS}"), Ledger.open(place, JOB, inputs, new=False):
        pass


def test_what_no_run_wrote_is_left_alone(place: str) -> None:
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        ledger.tell(SUMMARY, {})
    for new in (False, True):
        with (
            pytest.raises(OutputError, match="an earlier result of another kind"),
            Ledger.open(place, JOB, INPUTS, new=new),
        ):
            pass
    assert ledger.holds(SUMMARY)


def test_a_file_that_was_not_written_to_its_end_is_not_there(place: str) -> None:
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        ledger.begin()
        with suppress(KeyboardInterrupt), ledger.writing(TABLE) as file:
            file.write(b"image_id")
            raise KeyboardInterrupt
        assert not ledger.holds(TABLE)


def test_a_store_that_is_away_for_a_moment_gets_the_file_later(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_errors, "PAUSES", (0.0, 0.0))
    with Ledger.open(bucket.uri(tmp_path.name), JOB, INPUTS, new=False) as ledger:
        ledger.begin()
        upload, failures = ledger._upload, [OSError("AWS Error SLOW_DOWN"), OSError("AWS Error NETWORK_CONNECTION")]

        def sometimes(file: IO[bytes], name: str) -> None:
            if failures:
                file.read(3)
                raise failures.pop()
            upload(file, name)

        monkeypatch.setattr(ledger, "_upload", sometimes)
        ledger.publish(0, rows("a", "b"))
        assert ids(ledger) == ["a", "b"]
        failures += [OSError("AWS Error SLOW_DOWN")] * 3
        with pytest.raises(OutputError, match="cannot be reached"):
            ledger.publish(1, rows("c"))


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for new in (False, True):
        with (
            pytest.raises(OutputError, match="holds files that dermaray did not write"),
            Ledger.open(str(tmp_path), JOB, INPUTS, new=new),
        ):
            pass
    (tmp_path / ".dermaray").touch()
    for new in (False, True):
        with (
            pytest.raises(OutputError, match="an earlier result of another kind"),
            Ledger.open(str(tmp_path), JOB, INPUTS, new=new),
        ):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".dermaray", "notes.txt"]


def test_two_processes_are_kept_apart(tmp_path: Path) -> None:
    with (
        Ledger.open(str(tmp_path / "out"), JOB, INPUTS, new=False),
        pytest.raises(OutputError, match="another process is at work"),
        Ledger.open(str(tmp_path / "out"), JOB, INPUTS, new=False),
    ):
        pass


def test_what_a_kill_leaves_behind_does_not_count(tmp_path: Path) -> None:
    with Ledger.open(str(tmp_path), JOB, INPUTS, new=False) as ledger:
        ledger.begin()
        ledger.publish(0, rows("a"))
    (tmp_path / "scores.parquet" / ".part-00001.parquet.partial").write_bytes(b"PAR1")
    (tmp_path / ".scores.csv.partial").write_bytes(b"image_id")
    with Ledger.open(str(tmp_path), JOB, INPUTS, new=False) as ledger:
        assert ledger.done() == {0}
        assert ids(ledger) == ["a"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, message in ((tmp_path / "file", "is a file"), ("/proc/nowhere", "cannot write to /proc/nowhere")):
        with pytest.raises(OutputError, match=message), Ledger.open(str(place), JOB, INPUTS, new=False):
            pass


def test_it_clears_its_own_alone(place: str) -> None:
    with Ledger.open(place, JOB, INPUTS, new=False) as ledger:
        ledger.begin()
        ledger.publish(0, rows("a"))
        ledger.succeed()
        assert ledger.complete
        ledger.tell("notes.json", {})
        ledger.clear()
        assert not ledger.complete
        assert ledger.done() == set()
        assert ledger.holds("notes.json")
