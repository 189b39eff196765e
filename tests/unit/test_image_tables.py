"""Tables of images as others write them: bytes that are missing, and lie elsewhere or nowhere."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

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


def test_an_id_of_bytes_is_text(tmp_path: Path) -> None:
    table = pa.table({"image_id": pa.array([b"ISIC_1", b"caf\xe9"], pa.binary()), "bytes": [png(0), png(1)]})
    assert [member.image_id for member in read(table, tmp_path / "rows.parquet")] == ["ISIC_1", "caf\\xe9"]
    numbers = pa.table({"id": [0, 1], "bytes": [png(0), png(1)]})
    assert [member.image_id for member in read(numbers, tmp_path / "rows.parquet")] == ["0", "1"]
