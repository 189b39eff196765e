"""Single images of an input, read where they are used."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa

from dermaray.data.image_tables import Part, read_part
from dermaray.data.source import is_image_name, stem_of
from dermaray.data.storage import is_uri, name_of, opened, read_bytes, read_file, shown
from dermaray.data.store_errors import explained
from dermaray.data.tars import DAMAGED as TAR_DAMAGED
from dermaray.data.tars import TarMember, read_tar, stream_tar
from dermaray.data.zips import DAMAGED as ZIP_DAMAGED
from dermaray.data.zips import ZipMember, read_zip
from dermaray.errors import CredentialsError, DataError, ImageError, StoreError
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
        pa.field("checksum", pa.int64()),
        pa.field("image_id", pa.string()),
    ]
)
"""One row per image, except in what can only be read from a start: such a tar is one row, a table one per part.

`kind` is `folder`, `zip`, `tar`, `tar_stream`, `table`, `object` or `lost`. `image_id` is null where the name tells. Of
what is `lost`, a part of an input that cannot be listed or an entry of a tar that is no file, `name` says why. An
object's `name` is its whole URI, with no `archive`; so is that of a file in a folder whose name is in no encoding. A
table's is that of its column; `offset` and `size` are then the first row of the part and how many it has. Of a member
of a zip `offset`, `size` and `checksum` are those of `ZipMember`, of one of a tar those of `TarMember`.
"""

STREAMS = ("tar_stream", "table")
"""Kinds of which a row stands for many images."""

_THREADS = 16
"""Objects that are fetched at a time: each waits for the network for most of its time."""

_STREAM_BYTES = 8 * 1024 * 1024
"""Fetched of an archive at a time that is read from its start to its end."""

_DAMAGED = (*ZIP_DAMAGED, *TAR_DAMAGED, pa.ArrowException, DataError)


class MemberRow(NamedTuple):
    """A row of `MEMBER_SCHEMA`."""

    archive: str
    kind: str
    name: bytes
    offset: int = 0
    size: int = 0
    checksum: int = 0
    image_id: str | None = None


@dataclass(frozen=True)
class Member:
    """One image of an input.

    Attributes:
        image_id: What a table or a manifest calls it, or the file's name without folder and suffix.
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


def read_members(members: pa.Table) -> Iterator[Member]:
    """Read the images that rows of `MEMBER_SCHEMA` stand for, in order. An image that cannot be read is yielded too.

    Args:
        members: The rows; further columns are let be.

    Raises:
        StoreError: An object store cannot be reached, or does not accept the credentials any more.
    """
    rows = (MemberRow(**row) for row in members.select(MEMBER_SCHEMA.names).to_pylist())
    with _Archives() as archives:
        for kind, group in groupby(rows, key=lambda row: row.kind):
            if kind == "object":
                yield from _read_objects(list(group))
                continue
            for row in group:
                if kind == "tar_stream":
                    yield from _stream(row)
                elif kind == "table":
                    yield from _read_table(row)
                else:
                    yield _read(row, archives)


def member_row(members: pa.Table, position: int) -> MemberRow:
    """Return one row of a table that has the columns of `MEMBER_SCHEMA`."""
    (row,) = members.select(MEMBER_SCHEMA.names).slice(position, 1).to_pylist()
    return MemberRow(**row)


def name_member(row: MemberRow) -> tuple[str, str]:
    """Return the `image_id` and the `uri` of what a row of `MEMBER_SCHEMA` stands for, without reading it."""
    stem, uri = _named(row)
    return stem if row.image_id is None else row.image_id, uri


def _named(row: MemberRow) -> tuple[str, str]:
    archive, kind, name = row.archive, row.kind, os.fsdecode(row.name)
    named = shown(name)
    if kind == "object":
        try:
            return stem_of(name_of(named)), named
        except DataError:
            return stem_of(Path(named.partition("?")[0])), named
    if kind in (*STREAMS, "lost"):
        return stem_of(name_of(archive)), archive
    if kind == "folder":
        return stem_of(Path(named)), str(Path(archive) / named)
    # Windows parts folders so.
    path = Path(named.replace("\\", "/") if kind == "zip" else named)
    return stem_of(path), f"{archive}::{named}"


class _Archives(ExitStack):
    """Archives that are read from, each opened once."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: dict[str, IO[bytes]] = {}

    def __getitem__(self, place: str) -> IO[bytes]:
        if place not in self._opened:
            self._opened[place] = self.enter_context(opened(place))
        return self._opened[place]


def _read(row: MemberRow, archives: _Archives) -> Member:
    image_id, uri = name_member(row)
    name = os.fsdecode(row.name)
    if row.kind == "lost":
        return Member(image_id, uri, b"", ImageError("unreadable", name))
    try:
        if row.kind == "folder":
            data = read_file(os.path.join(row.archive, name), MAX_BYTES + 1)
        elif row.kind == "zip":
            member = ZipMember(name, row.offset, row.size, row.checksum)
            data = read_zip(archives[row.archive], member, MAX_BYTES + 1)
        else:
            data = read_tar(archives[row.archive], TarMember(name, row.offset, row.size), MAX_BYTES + 1)
    except _DAMAGED as error:
        return Member(image_id, uri, b"", _unreadable(row.archive, error, "cannot be read"))
    return Member(image_id, uri, data)


def _unreadable(place: str, error: Exception, what: str) -> ImageError:
    """Return why an image cannot be read.

    Raises:
        StoreError: Nothing else that lies in the same store can be for now: it is no fault of the image.
    """
    found = error if isinstance(error, DataError) or not is_uri(place) else explained(place, error)
    if isinstance(found, StoreError):
        raise found
    return ImageError("unreadable", str(found) if isinstance(found, DataError) else f"{what}: {found}")


def _read_objects(rows: Sequence[MemberRow]) -> Iterator[Member]:
    """Read objects several at a time, in order, and no more of them ahead than are fetched at a time."""
    pool = ThreadPoolExecutor(_THREADS)
    pending: deque[Future[Member]] = deque()
    named = [name_member(row) for row in rows]
    some = [named[place][1] for place in sorted({0, len(named) // 2, len(named) - 1})]
    try:
        for image_id, uri in named:
            if len(pending) == _THREADS:
                yield pending.popleft().result()
            pending.append(pool.submit(_read_object, image_id, uri, some))
        while pending:
            yield pending.popleft().result()
    finally:
        # Not waited for: one that hangs would hold up who has given it up.
        pool.shutdown(wait=False, cancel_futures=True)


def _read_object(image_id: str, uri: str, some: Sequence[str]) -> Member:
    """Read an object; `some` others tell whether it is the store that refuses, or what is asked for."""
    try:
        return Member(image_id, uri, read_bytes(uri, MAX_BYTES + 1))
    except CredentialsError as error:
        # Encrypted with a key of its own, perhaps: a run that ends over it would do so each time.
        if not any(other != uri and _store_of(other) == _store_of(uri) and _is_readable(other) for other in some):
            raise
        return Member(image_id, uri, b"", ImageError("unreadable", f"{error}; it accepts them for others"))
    except DataError as error:
        return Member(image_id, uri, b"", _unreadable(uri, error, "cannot be read"))


def _store_of(uri: str) -> str:
    return "/".join(uri.split("/")[:3])


def _is_readable(uri: str) -> bool:
    try:
        read_bytes(uri, 1)
    except DataError:
        return False
    return True


def _stream(row: MemberRow) -> Iterator[Member]:
    try:
        with opened(row.archive, _STREAM_BYTES) as file:
            for name, member, problem in stream_tar(file):
                if is_image_name(Path(name)):
                    named = shown(name)
                    error = ImageError("unreadable", shown(problem)) if member is None else None
                    data = b"" if member is None else member.read(MAX_BYTES + 1)
                    yield Member(stem_of(Path(named)), f"{row.archive}::{named}", data, error)
    except _DAMAGED as error:
        # What comes after the damage is lost, and nobody knows what it was: one row tells of it.
        lost = _unreadable(row.archive, error, "the archive is damaged from here on")
        yield Member(*name_member(row), b"", lost)


def _read_table(row: MemberRow) -> Iterator[Member]:
    place, part = row.archive, Part(row.offset, row.size)
    for image_id, number, data, problem in read_part(place, os.fsdecode(row.name), part):
        error = None if problem is None else _unreadable(place, problem, "")
        yield Member(image_id, f"{place}::{number}", data, error)
