"""Parquet and Arrow files whose rows are images: the bytes of their files, or where those lie."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from dermaray.data.storage import is_uri, local_path, locate, name_of, quote, read_bytes
from dermaray.data.store_errors import STORE_ERRORS, UNKNOWN, explained, patiently
from dermaray.errors import DataError
from dermaray.images.decode import MAX_BYTES

SUFFIXES = (".parquet", ".arrow", ".feather")

BYTES = ("bytes", "image", "image_bytes", "content", "data")
"""Columns of binary values, or of structs with a field `bytes`, that hold images; the first that is there counts."""

PATHS = ("uri", "path", "file", "image_path", "file_name", "filename")
"""Columns of paths and URIs, asked for where there are no bytes; relative ones count from the table's folder."""

IDS = ("image_id", "isic_id", "id", "__key__")
"""Columns that name the image of a row."""

_ARROW = b"ARROW1"
"""How Arrow's format of files begins."""

_ROWS = 32
_BUFFER_BYTES = 1024 * 1024


class Part(NamedTuple):
    """Rows of a table that are read together: a row group of a Parquet file, or all of an Arrow file."""

    start: int
    rows: int


class TableImage(NamedTuple):
    """One row: the image's id, the number of its row and its bytes; or why these could not be read."""

    image_id: str
    row: int
    data: bytes
    problem: DataError | None


class TablePath(NamedTuple):
    """One row: the image's id, where the table has one, the number of its row and where the file lies, if it says."""

    image_id: str | None
    row: int
    path: str | None


def bytes_column(place: str) -> str | None:
    """Return the column that holds images, or None where the table holds paths.

    Raises:
        DataError: The table cannot be read, or holds neither.
    """
    with _opened(place) as table:
        schema = table.schema
    for name in BYTES:
        if name in schema.names and _is_bytes(schema.field(name).type):
            return name
    if _path_column(schema) is not None:
        return None
    raise DataError(
        f"{place} has no images: a column of bytes ({', '.join(BYTES)}) or of paths ({', '.join(PATHS)}) was expected. "
        f"It has: {', '.join(schema.names)}"
    )


def parts_of(place: str) -> list[Part]:
    """Return the parts of a table that holds images.

    Raises:
        DataError: It cannot be read.
    """
    with _opened(place) as table:
        return list(table.parts())


def paths_in(place: str) -> list[TablePath]:
    """Return where the images of a table's rows lie, absolute.

    Raises:
        DataError: The table cannot be read.
    """
    rows: list[TablePath] = []
    stem = name_of(place).stem
    with _opened(place) as table:
        column, ids = str(_path_column(table.schema)), _first(IDS, table.schema)
        for batch in table.batches(None, [column] if ids is None else [ids, column]):
            names = [None] * len(batch) if ids is None else texts(batch[ids])
            # A path may be bytes in no encoding.
            for name, path in zip(names, texts(batch[column], "surrogateescape"), strict=True):
                found = None if path is None else beside(place, path)
                rows.append(TablePath(f"{stem}-{len(rows)}" if name is found is None else name, len(rows), found))
    return rows


def beside(place: str, path: str) -> str:
    """Return a path that a file names: as it is where it is absolute or a URI, otherwise from the file's folder."""
    if is_uri(path) or os.path.isabs(path):
        return path
    local = local_path(place)
    if local is not None:
        return os.path.join(local.absolute().parent, path)
    base, mark, query = place.partition("?")
    return f"{base.rpartition('/')[0]}/{quote(path)}{mark}{query}"


def read_part(place: str, column: str, part: Part) -> Iterator[TableImage]:
    """Yield the images of a part, in order; each of its rows, also where the file cannot be read any further."""
    row, end = part.start, part.start + part.rows
    stem = name_of(place).stem
    ended = DataError("the table has fewer rows than before")
    try:
        with _opened(place) as table:
            ids = _first(IDS, table.schema)
            for batch in table.batches(part, [column] if ids is None else [ids, column]):
                names = [None] * len(batch) if ids is None else texts(batch[ids])
                for name, data, path in zip(names, binary(batch[column]), _paths_in(batch[column]), strict=True):
                    image_id = f"{stem}-{row}" if name is None else name
                    yield TableImage(image_id, row, *_bytes_of(data.as_py(), path, place))
                    row += 1
    except DataError as error:
        ended = error
    for missing in range(row, end):
        yield TableImage(f"{stem}-{missing}", missing, b"", ended)


def _bytes_of(data: bytes | None, path: str | None, place: str) -> tuple[bytes, DataError | None]:
    """Return an image's bytes, which may lie in a file that the row names instead, or none and why."""
    if data is not None:
        return data, None
    if path is None:
        return b"", DataError("the row has no bytes")
    try:
        return read_bytes(beside(place, path), MAX_BYTES + 1), None
    except DataError as error:
        return b"", error


class _Parquet:
    def __init__(self, file: pa.NativeFile) -> None:
        # Neither ahead nor at once: a row group may be larger than memory.
        self._file = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        self.schema: pa.Schema = self._file.schema_arrow

    def parts(self) -> Iterator[Part]:
        start = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            yield Part(start, rows)
            start += rows

    def batches(self, part: Part | None, columns: list[str]) -> Iterator[pa.RecordBatch]:
        groups = [i for i, known in enumerate(self.parts()) if part in (None, known)]
        yield from self._file.iter_batches(_ROWS, groups, columns)


class _Arrow:
    """A file of Arrow's, in the format of files or in that of streams, which Hugging Face's datasets writes."""

    def __init__(self, file: pa.NativeFile, place: str) -> None:
        self._file, self._place = file, place
        self._is_stream = file.read(len(_ARROW)) != _ARROW
        self.schema: pa.Schema = self._opened().schema

    def parts(self) -> Iterator[Part]:
        yield Part(0, self._count() if self._is_stream else self._opened().count_rows())

    def batches(self, part: Part | None, columns: list[str]) -> Iterator[pa.RecordBatch]:
        opened = self._opened()
        for batch in opened if self._is_stream else map(opened.get_batch, range(opened.num_record_batches)):
            chosen = batch.select(columns)
            for start in range(0, chosen.num_rows, _ROWS):
                yield chosen.slice(start, _ROWS)

    def _count(self) -> int:
        """Count the rows of a stream, which takes reading it; one more where it is damaged further on."""
        rows = 0
        try:
            for batch in self._opened():
                rows += len(batch)
        except STORE_ERRORS as error:
            # Where a store fails, nobody knows how many follow. Of damage nothing is known but what Arrow says.
            if is_uri(self._place) and UNKNOWN not in str(explained(self._place, error)):
                raise
            rows += 1
        return rows

    def _opened(self) -> Any:
        self._file.seek(0)
        return pa.ipc.open_stream(self._file) if self._is_stream else pa.ipc.open_file(self._file)


@contextmanager
def _opened(place: str) -> Iterator[_Parquet | _Arrow]:
    kind = _Parquet if name_of(place).suffix.lower() == ".parquet" else _Arrow
    filesystem, path = locate(place)
    try:
        with patiently(place, lambda: filesystem.open_input_file(path)) as file:
            yield _Parquet(file) if kind is _Parquet else _Arrow(file, place)
    except pa.ArrowInvalid as error:
        what = "Parquet" if kind is _Parquet else "Arrow"
        raise DataError(f"{place} is no {what}, or damaged: {str(error).splitlines()[0][:200]}") from error
    except STORE_ERRORS as error:
        raise explained(place, error) from error


def _first(names: tuple[str, ...], schema: pa.Schema) -> str | None:
    return next((name for name in names if name in schema.names), None)


def _path_column(schema: pa.Schema) -> str | None:
    return next((name for name in PATHS if name in schema.names and _is_text(schema.field(name).type)), None)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and _is_bytes(kind.field(position).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def texts(column: pa.Array | pa.ChunkedArray, errors: str = "backslashreplace") -> list[str | None]:
    """Return the values of a column as text; what was written as text need not be UTF-8."""
    if _is_text(column.type):
        values = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", errors) for value in values]
    values = column.to_pylist()
    as_text = [value.decode("utf-8", errors) if isinstance(value, bytes) else value for value in values]
    return [None if value is None else str(value) for value in as_text]


def _paths_in(column: pa.Array) -> list[str | None]:
    """Return the paths beside the bytes of a column of images, as Hugging Face's datasets have them; None without."""
    if not pa.types.is_struct(column.type) or column.type.get_field_index("path") < 0:
        return [None] * len(column)
    return texts(pc.struct_field(column, "path"), "surrogateescape")


def binary(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return the bytes of a column of images, also where they are a field of it."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
