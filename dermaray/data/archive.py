"""Images of an input, listed by the driver: a folder, a zip, a tar, or files wherever they lie."""

import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import pyarrow as pa

from dermaray.data.image_tables import Part, TablePath
from dermaray.data.members import MEMBER_SCHEMA, MemberRow
from dermaray.data.source import is_image_file, is_image_name, kind_of, stem_of
from dermaray.data.storage import check_named, is_folder, is_text, is_uri, local_path, name_of, opened, shown, stamp
from dermaray.data.store_errors import explained
from dermaray.data.tars import DAMAGED as TAR_DAMAGED
from dermaray.data.tars import is_tar, list_tar
from dermaray.data.zips import DAMAGED as ZIP_DAMAGED
from dermaray.data.zips import begins_as_zip, list_zip
from dermaray.errors import DataError

_TOGETHER = 16_384
"""Images of a folder that are told of at a time: few enough that who takes them does not wait for long."""


@dataclass(frozen=True)
class Listing:
    """What an input, or a part of it, holds.

    Attributes:
        members: Rows of `MEMBER_SCHEMA`, in an order that is the same every time.
        images: How many images, or None where only reading them will tell.
        ignored: How many files were passed over because their names are not those of images, per suffix.
    """

    members: pa.Table
    images: int | None
    ignored: dict[str, int]


def joined(listings: Iterable[Listing]) -> Listing:
    """Return several listings, at least one, as one."""
    parts = list(listings)
    ignored: Counter[str] = Counter()
    for part in parts:
        ignored.update(part.ignored)
    known = [part.images for part in parts]
    images = None if None in known else sum(count or 0 for count in known)
    return Listing(pa.concat_tables([part.members for part in parts]), images, dict(sorted(ignored.items())))


def list_members(source: Path) -> Listing:
    """List the images of a folder (with all that is below it), a zip or a tar.

    Raises:
        DataError: The input is missing, of another kind, damaged, or holds no image.
    """
    return joined(stream_members(source))


def stream_members(source: Path) -> Iterator[Listing]:
    """List as `list_members` does, but tell of a folder as it is gone through: it may hold millions.

    Raises:
        DataError: See `list_members`; of a folder without an image only at its end.
    """
    if source.is_dir():
        yield from _with_images(str(source), _list_folder(source))
    elif not source.exists():
        raise DataError(f"{source} does not exist. A folder, a zip or a tar of images was expected")
    elif begins_as_zip(source):
        yield from _with_images(str(source), [_list_zip(str(source))])
    elif _is_tar(source):
        yield from _with_images(str(source), [_list_tar(source)])
    elif is_image_file(source):
        yield _listing([_file_row(str(source.parent), source.name)])
    # Something else may stand before a zip, which is found from its end; that of a tar or a photograph is none of ours.
    elif zipfile.is_zipfile(source):
        yield from _with_images(str(source), [_list_zip(str(source))])
    else:
        raise DataError(f"{source} is neither a zip nor a tar nor an image. A folder or one of those was expected")


def stream_stored_archive(uri: str) -> Iterator[Listing]:
    """List the images of a zip in an object store; a tar there is read from its start, as a compressed one is here.

    Raises:
        DataError: It is missing, damaged, or holds no image.
    """
    if name_of(uri).suffix.lower() == ".zip":
        yield from _with_images(uri, [_list_zip(uri)])
    elif stamp(uri):
        yield _from_start(uri)
    else:
        raise DataError(f"{uri} does not exist")


def files_listing(paths: Iterable[str], image_ids: Iterable[str] = ()) -> pa.Table:
    """Return rows of `MEMBER_SCHEMA` for files known by path and objects known by URI, in the order given.

    Args:
        paths: The files.
        image_ids: What the images are called, where not their files' names tell.
    """
    rows = [_place_row(place) for place in paths]
    for number, image_id in enumerate(image_ids):
        rows[number] = rows[number]._replace(image_id=image_id)
    return _listing(rows).members


def lost_listing(place: str, why: str) -> Listing:
    """Return the one row of a part of an input that cannot be listed."""
    return _listing([_lost_row(place, why)])


def _lost_row(place: str, why: str) -> MemberRow:
    return MemberRow(shown(place), "lost", shown(why).encode())


def _place_row(place: str) -> MemberRow:
    try:
        path = local_path(place)
    except DataError:
        # Whoever reads it says in its row what is wrong with it.
        path = None
    if path is None:
        return MemberRow("", "object", os.fsencode(place))
    return _file_row(str(path.parent), path.name)


def _file_row(folder: str, name: str) -> MemberRow:
    """Return the row of a file; a folder whose name is in no encoding goes into the name, which is kept as bytes."""
    if is_text(folder):
        return MemberRow(folder, "folder", os.fsencode(name))
    return MemberRow("", "folder", os.fsencode(os.path.join(folder, name)))


def table_listing(place: str, column: str, parts: Sequence[Part]) -> Listing:
    """List the images in a column of a table; see `dermaray.data.image_tables`."""
    rows = [MemberRow(place, "table", column.encode(), part.start, part.rows) for part in parts if part.rows]
    return Listing(_listing(rows).members, sum(part.rows for part in parts), {})


def paths_listing(place: str, paths: Iterable[TablePath]) -> Listing:
    """List the images that a table names by their paths; see `dermaray.data.image_tables`."""
    rows = []
    for image_id, number, path in paths:
        row = _lost_row(f"{place}::{number}", "its path is missing") if path is None else _place_row(path)
        rows.append(row._replace(image_id=image_id))
    return _listing(rows)


def _listing(rows: list[MemberRow], ignored: Counter[str] | None = None) -> Listing:
    columns = zip(*rows, strict=True) if rows else [[] for _ in MEMBER_SCHEMA]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, MEMBER_SCHEMA, strict=True)]
    return Listing(pa.table(arrays, schema=MEMBER_SCHEMA), len(rows), dict(sorted((ignored or {}).items())))


def _with_images(place: str, listings: Iterable[Listing]) -> Iterator[Listing]:
    """Pass on what a place holds, and refuse one without any image at its end."""
    empty, ignored = True, 0
    for listing in listings:
        empty, ignored = empty and listing.images == 0, ignored + sum(listing.ignored.values())
        yield listing
    if empty:
        passed = f" {ignored} files of other kinds are in it." if ignored else ""
        endings = ".jpg, .png, .tif, .bmp, .webp, .gif, .heic or .dcm"
        raise DataError(f"{place} holds no image.{passed} Images end in {endings}")


def _is_tar(source: Path) -> bool:
    try:
        return is_tar(source)
    except TAR_DAMAGED as error:
        raise DataError(f"{source} is a damaged archive: {error}") from error


def _list_folder(source: Path) -> Iterator[Listing]:
    ignored: Counter[str] = Counter()
    rows = []
    for name, is_dir, problem in _files_below(str(source)):
        if problem is not None:
            rows.append(_lost_row(os.path.join(source, name), str(problem)))
        elif not is_dir and is_image_file(source / name):
            rows.append(_file_row(str(source), name))
        else:
            ignored[kind_of(PurePath(name))] += 1
        if len(rows) == _TOGETHER:
            yield _listing(rows)
            rows = []
    yield _listing(rows, ignored)


def _files_below(source: str, below: str = "") -> Iterator[tuple[str, bool, DataError | None]]:
    """Yield the files of a folder and of all folders in it, relative to it and in order.

    Yields:
        A path, whether it is a folder, and why what that holds is lost: None of a link, which leads to what is listed.

    Raises:
        DataError: The folder itself cannot be listed.
    """
    folder = os.path.join(source, below)
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name, is_folder(entry), entry.is_symlink()) for entry in entries)
    except OSError as error:
        problem = DataError(f"{shown(folder)} cannot be listed: {error.strerror}")
        if not below:
            raise problem from error
        yield below, True, problem
        return
    for name, is_dir, is_link in names:
        path = os.path.join(below, name)
        if not is_dir:
            yield path, False, None
        elif is_link:
            problem = DataError("a link to a folder, which is not followed. Name it as an input of its own")
            yield path, True, problem if _leads_out(source, path) else None
        else:
            yield from _files_below(source, path)


def _leads_out(source: str, link: str) -> bool:
    folder, target = os.path.realpath(source), os.path.realpath(os.path.join(source, link))
    return os.path.commonpath([folder, target]) != folder


def _list_zip(place: str) -> Listing:
    check_named(place, "rows name their archive")
    ignored: Counter[str] = Counter()
    rows = []
    try:
        with opened(place) as file:
            members, joined_to_another = list_zip(file)
    except (*ZIP_DAMAGED, pa.ArrowException) as error:
        if is_uri(place) and not isinstance(error, zipfile.BadZipFile):
            raise explained(place, error) from error
        raise DataError(f"{place} is a damaged zip: {error}") from error
    for name, offset, size, checksum in members:
        if is_image_name(PurePath(name)):
            rows.append(MemberRow(place, "zip", os.fsencode(name), offset, size, checksum))
        else:
            ignored[kind_of(PurePath(name))] += 1
    if joined_to_another:
        rows.append(_lost_row(place, "another zip stands before the last one in the file; only the last is read"))
    return _listing(rows, ignored)


def _list_tar(source: Path) -> Listing:
    check_named(str(source), "rows name their archive")
    ignored: Counter[str] = Counter()
    rows = []
    with opened(source) as file:
        members = list_tar(file)
    if members is None:
        return _from_start(str(source))
    for name, offset, size, problem in members:
        if not is_image_name(PurePath(name)):
            ignored[kind_of(PurePath(name))] += 1
        elif problem:
            rows.append(_lost_row(f"{source}::{name}", problem)._replace(image_id=stem_of(PurePath(shown(name)))))
        else:
            rows.append(MemberRow(str(source), "tar", os.fsencode(name), offset, size))
    return _listing(rows, ignored)


def _from_start(place: str) -> Listing:
    """List a tar in which nothing has a place of its own that could be read by itself."""
    row = MemberRow(place, "tar_stream", os.fsencode(name_of(place).name))
    return Listing(_listing([row]).members, None, {})
