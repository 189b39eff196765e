"""Reading within a process: an image that takes too long has its row, and those behind it theirs."""

import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermaray.data import members
from dermaray.data.archive import joined
from dermaray.data.inputs import stream_inputs
from dermaray.data.members import Member
from dermaray.errors import CredentialsError
from dermaray.images import decode
from dermaray.images.spec import InputSpec
from dermaray.models.bulk import Batch
from dermaray.scoring import pieces, pipeline
from tests.odd_files import jpeg

IMAGES = {f"{number:03}": jpeg(number) for number in range(6)}
SLOW = "002"
SPEC = InputSpec(height=16, width=16)


def folder(place: Path) -> Path:
    place.mkdir()
    for name, data in IMAGES.items():
        (place / f"{name}.jpg").write_bytes(data)
    return place


def packed(place: Path) -> Path:
    with tarfile.open(place.with_suffix(".tar.gz"), "w:gz") as archive:
        for name, data in IMAGES.items():
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return place.with_suffix(".tar.gz")


def table(place: Path) -> Path:
    pq.write_table(pa.table({"image_id": list(IMAGES), "bytes": list(IMAGES.values())}), place.with_suffix(".parquet"))
    return place.with_suffix(".parquet")


@pytest.fixture
def never() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def piece_of(source: Path) -> pieces.Piece:
    (piece,) = pieces.pieces_of([joined(stream_inputs([str(source)])).members], [0])
    return piece


def reasons(source: Path) -> list[str]:
    rows: list[tuple[int, str, bool]] = []
    for batch in pipeline._Read(SPEC, 1.0)(piece_of(source).table()):
        rows += zip(batch["row"].tolist(), batch["reason"].tolist(), batch["last"].tolist(), strict=True)
    assert [row for row, _, _ in rows] == list(range(len(rows)))
    assert [last for _, _, last in rows] == [False] * (len(rows) - 1) + [True]
    return [reason for _, reason, _ in rows]


@pytest.mark.parametrize("make", [folder, packed, table])
def test_an_image_that_takes_too_long_costs_no_other(
    make: Callable[[Path], Path], never: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = pipeline.image_row

    def slow(member: Member, spec: InputSpec) -> Batch:
        if member.image_id == SLOW:
            never.wait(60)
        return decode(member, spec)

    monkeypatch.setattr(pipeline, "image_row", slow)
    assert reasons(make(tmp_path / "input")) == ["", "", "timed_out", "", "", ""]


def test_objects_that_share_a_slow_line_are_waited_for(
    tmp_path: Path, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(place: str, limit: int) -> bytes:
        # Longer than an image may take that comes alone.
        never.wait(60 if SLOW in place else 1.5)
        return IMAGES[Path(place).stem]

    monkeypatch.setattr(members, "read_bytes", slowly)
    (tmp_path / "list.txt").write_text("\n".join(f"s3://bucket/{name}.jpg" for name in IMAGES))
    assert reasons(tmp_path / "list.txt") == ["", "", "timed_out", "", "", ""]


@pytest.mark.parametrize("refused", [{SLOW}, set(IMAGES)])
def test_an_object_that_its_store_refuses_for_good_ends_no_run(
    refused: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(place: str, limit: int) -> bytes:
        if Path(place).stem in refused:
            raise CredentialsError(f"{place}: the store does not accept the credentials")
        return IMAGES[Path(place).stem]

    monkeypatch.setattr(members, "read_bytes", read)
    (tmp_path / "list.txt").write_text("\n".join(f"s3://bucket/{name}.jpg" for name in IMAGES))
    # Where it refuses all, nothing is any image's fault.
    expected = ["", "", "unreadable", "", "", ""] if refused == {SLOW} else [pipeline.FAILED]
    found = []
    for batch in pipeline._Read(SPEC, 1.0)(piece_of(tmp_path / "list.txt").table()):
        found += batch["reason"].tolist()
    assert found == expected


@pytest.mark.parametrize(("make", "lost"), [(packed, 2), (table, 4)])
def test_what_cannot_even_be_passed_over_is_given_up(
    make: Callable[[Path], Path], lost: int, never: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = pieces.read_members

    def stuck(*args: Any, **options: Any) -> Iterator[Member]:
        for member in read(*args, **options):
            if member.image_id == SLOW:
                never.wait(60)
            yield member

    monkeypatch.setattr(pieces, "read_members", stuck)
    # Of a table it is known how many follow; of an archive one row tells of them all.
    assert reasons(make(tmp_path / "input")) == ["", "", *["timed_out"] * lost]


def test_a_decoder_that_fails_in_a_way_of_its_own_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_: Any) -> Any:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(decode, "_decoded", decoded)
    assert reasons(folder(tmp_path / "input")) == ["unsupported"] * 6
