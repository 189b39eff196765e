"""Images, wherever they lie: a folder, a zip, a tar or an object store. Listed by the driver, read where used."""

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from dermaray.data.image_tables import Part, read_part
from dermaray.data.source import is_image_name
from dermaray.data.storage import local_path, name_of, read_bytes
from dermaray.errors import DataError, ImageError
from dermaray.images.decode import MAX_BYTES, DecodedImage, decode_frame, decode_image
from dermaray.images.spec import InputSpec

MEMBER_SCHEMA = pa.schema(
    [
        pa.field("archive", pa.string()),
        pa.field("kind", pa.string()),
        # Bytes, because the name of a file need not be valid in any encoding.
        pa.field("name", pa.binary()),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
    ]
)
"""One row per image, except in what can only be read from a start: a compressed tar is one row, a table one per part.

`kind` is `folder`, `zip`, `tar`, `tar_stream`, `table` or `object`. An object's `name` is its whole URI. A table's is
that of its column; `offset` and `size` are then the first row of the part and how many it has.
"""

STREAMS = ("tar_stream", "table")
"""Kinds of which a row stands for many images."""

_THREADS = 16
"""Objects that are fetched at a time: each waits for the network for most of its time."""

# zipfile raises RuntimeError for an encrypted member and NotImplementedError for an unknown compression.
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class Listing:
    """What an input holds.

    Attributes:
        members: Rows of `MEMBER_SCHEMA`, sorted.
        images: How many images, or None where only reading them will tell.
        ignored: How many files were passed over because their names are not those of images, per suffix.
    """

    members: pa.Table
    images: int | None
    ignored: dict[str, int]


@dataclass(frozen=True)
class Member:
    """One image of an input.

    Attributes:
        image_id: The file's name without folder and suffix.
        uri: Where it lies; `archive::member` for a member of an archive.
        data: Its bytes, cut off one byte past the decoder's limit; empty where `error` says why.
        error: Why the bytes could not be read, or None.
    """

    image_id: str
    uri: str
    data: bytes
    error: ImageError | None = None

    def decode(self, spec: InputSpec) -> DecodedImage:
        """Decode the image to what a model takes.

        Raises:
            ImageError: It could not be read, or cannot be decoded.
        """
        if self.error:
            raise self.error
        return decode_image(self.data, spec)

    def decode_frame(self, spec: InputSpec | None) -> DecodedImage:
        """Decode the image to its frame, or where `spec` is None as it is.

        Raises:
            ImageError: It could not be read, or cannot be decoded.
        """
        if self.error:
            raise self.error
        return decode_frame(self.data, spec)


def list_members(source: Path) -> Listing:
    """List the images of a folder (with all that is below it), a zip or a tar.

    Raises:
        DataError: The input is missing, of another kind, damaged, or holds no image.
    """
    if source.is_dir():
        listing = _list_folder(source)
    elif not source.exists():
        raise DataError(f"{source} does not exist. A folder, a zip or a tar of images was expected")
    elif zipfile.is_zipfile(source):
        listing = _list_zip(source)
    elif _is_tar(source):
        listing = _list_tar(source)
    elif is_image_name(source):
        listing = _listing([_row(source.parent, "folder", source.name)], Counter())
    else:
        raise DataError(f"{source} is neither a zip nor a tar nor an image. A folder or one of those was expected")
    if listing.images == 0:
        passed = f" {sum(listing.ignored.values())} files of other kinds are in it." if listing.ignored else ""
        raise DataError(f"{source} holds no image.{passed} Images end in .jpg, .png, .tif, .bmp, .webp or .gif")
    return listing


def _is_tar(source: Path) -> bool:
    try:
        return tarfile.is_tarfile(source)
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{source} is a damaged archive: {error}") from error


def files_listing(paths: list[str]) -> pa.Table:
    """Return rows of `MEMBER_SCHEMA` for files known by path and objects known by URI, in the order given."""
    rows = []
    for place in paths:
        path = local_path(place)
        rows.append(_row("", "object", place) if path is None else _row(path.parent, "folder", path.name))
    return _listing(rows, Counter()).members


def table_listing(place: str, column: str, parts: Sequence[Part]) -> Listing:
    """List the images in a column of a table; see `dermaray.data.image_tables`."""
    rows = [_row(place, "table", column, part.start, part.rows) for part in parts if part.rows]
    return Listing(pa.Table.from_pylist(rows, MEMBER_SCHEMA), sum(part.rows for part in parts), {})


def read_members(members: pa.Table) -> Iterator[Member]:
    """Read the images that rows of `MEMBER_SCHEMA` stand for, in order. An image that cannot be read is yielded too."""
    opened: dict[str, zipfile.ZipFile] = {}
    try:
        for kind, rows in groupby(members.to_pylist(), key=lambda row: row["kind"]):
            if kind == "object":
                yield from _read_objects(list(rows))
                continue
            for row in rows:
                if kind == "tar_stream":
                    yield from _stream_tar(Path(row["archive"]))
                elif kind == "table":
                    yield from _read_table(row)
                else:
                    yield _read_member(row, opened)
    finally:
        for archive in opened.values():
            archive.close()


def _read_member(row: dict[str, Any], opened: dict[str, zipfile.ZipFile]) -> Member:
    archive, kind, name = row["archive"], row["kind"], os.fsdecode(row["name"])
    image_id, uri = name_member(row)
    try:
        if kind == "folder":
            data = _read_file(os.path.join(archive, name))
        elif kind == "zip":
            if archive not in opened:
                opened[archive] = zipfile.ZipFile(archive)
            # By position, not by name: a name can occur twice in a zip.
            with opened[archive].open(opened[archive].infolist()[row["offset"]]) as file:
                data = file.read(MAX_BYTES + 1)
        else:
            data = _read_range(Path(archive), row["offset"], row["size"])
    except _DAMAGED as error:
        return Member(image_id, uri, b"", ImageError("unreadable", f"cannot be read: {error}"))
    return Member(image_id, uri, data)


def name_member(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the `image_id` and the `uri` of what a row of `MEMBER_SCHEMA` stands for, without reading it."""
    archive, kind, name = row["archive"], row["kind"], os.fsdecode(row["name"])
    shown = name.encode("utf-8", "backslashreplace").decode()
    if kind == "object":
        try:
            return name_of(name).stem, name
        except DataError:
            return Path(name.partition("?")[0]).stem, name
    if kind in STREAMS:
        return Path(archive).stem, archive
    return Path(shown).stem, str(Path(archive) / shown) if kind == "folder" else f"{archive}::{shown}"


def _read_objects(rows: Sequence[dict[str, Any]]) -> Iterator[Member]:
    """Read objects several at a time, in order, and no more of them ahead than are fetched at a time."""
    pool = ThreadPoolExecutor(_THREADS)
    pending: deque[Future[Member]] = deque()
    try:
        for row in rows:
            if len(pending) == _THREADS:
                yield pending.popleft().result()
            pending.append(pool.submit(_read_object, *name_member(row)))
        while pending:
            yield pending.popleft().result()
    finally:
        # Not waited for: one that hangs would hold up who has given it up.
        pool.shutdown(wait=False, cancel_futures=True)


def _read_object(image_id: str, uri: str) -> Member:
    try:
        return Member(image_id, uri, read_bytes(uri, MAX_BYTES + 1))
    except DataError as error:
        return Member(image_id, uri, b"", ImageError("unreadable", str(error)))


def _read_file(path: str) -> bytes:
    # A named pipe or a device would block or never end.
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    with open(path, "rb") as file:
        # Asked for no more than there is: Python takes memory for all that is asked for.
        return file.read(min(status.st_size, MAX_BYTES) + 1)


def _read_range(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(min(size, MAX_BYTES + 1))
    if len(data) < min(size, MAX_BYTES + 1):
        raise OSError("the archive ends inside this member")
    return data


def _stream_tar(path: Path) -> Iterator[Member]:
    try:
        with tarfile.open(path, "r|*") as tar:
            for info in tar:
                if info.isreg() and is_image_name(Path(info.name)):
                    shown = info.name.encode("utf-8", "backslashreplace").decode()
                    file: IO[bytes] | None = tar.extractfile(info)
                    data = file.read(MAX_BYTES + 1) if file else b""
                    yield Member(Path(shown).stem, f"{path}::{shown}", data)
    except _DAMAGED as error:
        # What comes after the damage is lost, and nobody knows what it was: one row tells of it.
        yield Member(
            path.stem, str(path), b"", ImageError("unreadable", f"the archive is damaged from here on: {error}")
        )


def _read_table(row: dict[str, Any]) -> Iterator[Member]:
    place, part = row["archive"], Part(row["offset"], row["size"])
    for image_id, number, data, problem in read_part(place, os.fsdecode(row["name"]), part):
        error = None if problem is None else ImageError("unreadable", problem)
        yield Member(image_id, f"{place}::{number}", data, error)


def _row(archive: Path | str, kind: str, name: str, offset: int = 0, size: int = 0) -> dict[str, object]:
    return {"archive": str(archive), "kind": kind, "name": os.fsencode(name), "offset": offset, "size": size}


def _listing(rows: list[dict[str, object]], ignored: Counter[str]) -> Listing:
    return Listing(pa.Table.from_pylist(rows, MEMBER_SCHEMA), len(rows), dict(sorted(ignored.items())))


def _list_folder(source: Path) -> Listing:
    ignored: Counter[str] = Counter()
    rows = []
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            continue
        if is_image_name(path):
            rows.append(_row(source, "folder", str(path.relative_to(source))))
        else:
            ignored[path.suffix.lower() or path.name] += 1
    return _listing(rows, ignored)


def _list_zip(source: Path) -> Listing:
    ignored: Counter[str] = Counter()
    rows = []
    try:
        with zipfile.ZipFile(source) as archive:
            for position, info in enumerate(archive.infolist()):
                if info.is_dir():
                    continue
                if is_image_name(Path(info.filename)):
                    rows.append(_row(source, "zip", info.filename, position, info.file_size))
                else:
                    ignored[Path(info.filename).suffix.lower() or Path(info.filename).name] += 1
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{source} is a damaged zip: {error}") from error
    return _listing(rows, ignored)


def _list_tar(source: Path) -> Listing:
    ignored: Counter[str] = Counter()
    rows = []
    try:
        with tarfile.open(source, "r:") as archive:
            for info in archive:
                if info.isreg() and is_image_name(Path(info.name)):
                    rows.append(_row(source, "tar", info.name, info.offset_data, info.size))
                elif info.isreg():
                    ignored[Path(info.name).suffix.lower() or Path(info.name).name] += 1
    except tarfile.ReadError:
        # Compressed: nothing in it has a place of its own that could be read by itself.
        row = _row(source, "tar_stream", source.name)
        return Listing(pa.Table.from_pylist([row], MEMBER_SCHEMA), None, {})
    return _listing(rows, ignored)
