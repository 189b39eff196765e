"""Tables of images as others write them: bytes that are missing, and lie elsewhere or nowhere."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from dermaray.data import image_tables
from dermaray.data.inputs import stream_inputs
from dermaray.data.members import Member, read_members
from tests.archives import png


def read(table: pa.Table, place: Path) -> list[Member]:
    pq.write_table(table, place)
    return [member for listing in stream_inputs([str(place)]) for member in read_members(listing.members)]


def test_an_image_without_bytes_is_the_file_that_its_row_names(tmp_path: Path) -> None:
    (tmp_path / "beside.png").write_bytes(png(1))
    images = [
        {"bytes": png(0), "path": "not there.png"},
        {"bytes": None, "path": "beside.png"},
        {"bytes": None, "path": "missing.png"},
        {"bytes": None, "path": "no\0name.png"},
        {"bytes": None, "path": "."},
        {"bytes": None, "path": None},
    ]
    one, beside, missing, unnamed, folder, nothing = read(pa.table({"image": images}), tmp_path / "rows.parquet")
    assert [one.data, beside.data] == [png(0), png(1)]
    assert one.error is beside.error is None
    assert "missing.png cannot be read: No such file" in str(missing.error)
    assert "null byte" in str(unnamed.error)
    assert "not a regular file" in str(folder.error)
    assert str(nothing.error) == "the row has no bytes"
    assert {m.error.reason for m in (missing, unnamed, folder, nothing) if m.error} == {"unreadable"}


class Breaking(io.BytesIO):
    """A file that breaks once more than so many of its bytes are read."""

    def __init__(self, data: bytes, limit: int, error: OSError) -> None:
        super().__init__(data)
        self._limit, self._error = limit, error

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > self._limit:
            raise self._error
        return super().read(size)


@pytest.mark.parametrize(
    ("place", "error", "counted"),
    [
        ("s3://bucket/a.arrow", OSError("AWS Error NETWORK_CONNECTION during GetObject"), None),
        ("s3://bucket/a.arrow", OSError("HTTP status 403"), None),
        ("s3://bucket/a.arrow", OSError("Expected to read 100 bytes but got 3"), True),
        ("s3://bucket/a.arrow", OSError("ZSTD decompression failed: Data corruption detected"), True),
        ("s3://bucket/a.arrow", OSError("Invalid flatbuffers message."), True),
        ("/folder/a.arrow", OSError(5, "Input/output error"), True),
    ],
)
def test_a_stream_whose_store_fails_is_not_taken_for_one_that_ends_there(
    place: str, error: OSError, counted: bool | None
) -> None:
    sink = io.BytesIO()
    rows = pa.record_batch({"bytes": [b"x" * 1000] * 10})
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        for _ in range(5):
            writer.write_batch(rows)
    file = pa.PythonFile(Breaking(sink.getvalue(), 20_000, error), mode="r")
    table = image_tables._Arrow(file, place)
    if not counted:
        with pytest.raises(OSError, match=str(error)):
            next(table.parts())
    else:
        (part,) = table.parts()
        assert 1 < part.rows < 50


def test_an_id_of_bytes_is_text(tmp_path: Path) -> None:
    table = pa.table({"image_id": pa.array([b"ISIC_1", b"caf\xe9"], pa.binary()), "bytes": [png(0), png(1)]})
    assert [member.image_id for member in read(table, tmp_path / "rows.parquet")] == ["ISIC_1", "caf\\xe9"]
    numbers = pa.table({"id": [0, 1], "bytes": [png(0), png(1)]})
    assert [member.image_id for member in read(numbers, tmp_path / "rows.parquet")] == ["0", "1"]
