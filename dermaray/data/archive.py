"""Images of an input, listed by the driver: a folder, a zip, a tar, or files wherever they lie."""

import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import pyarrow as pa

from dermaray.data.image_tables import Part
from dermaray.data.members import MEMBER_SCHEMA, MemberRow
from dermaray.data.source import is_image_name, kind_of
from dermaray.data.storage import explained, is_uri, local_path, name_of, opened, stamp
from dermaray.data.tars import DAMAGED as TAR_DAMAGED
from dermaray.data.tars import list_tar
from dermaray.data.zips import DAMAGED as ZIP_DAMAGED
from dermaray.data.zips import list_zip
from dermaray.errors import DataError


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
        listing = _list_zip(str(source))
    elif _is_tar(source):
        listing = _list_tar(source)
    elif is_image_name(source):
        listing = _listing([MemberRow(str(source.parent), "folder", os.fsencode(source.name))])
    else:
        raise DataError(f"{source} is neither a zip nor a tar nor an image. A folder or one of those was expected")
    return _with_images(str(source), listing)


def list_stored_archive(uri: str) -> Listing:
    """List the images of a zip in an object store; a tar there is read from its start, as a compressed one is here.

    Raises:
        DataError: It is missing, damaged, or holds no image.
    """
    if name_of(uri).suffix.lower() == ".zip":
        return _with_images(uri, _list_zip(uri))
    if not stamp(uri):
        raise DataError(f"{uri} does not exist")
    return _from_start(uri)


def files_listing(paths: list[str]) -> pa.Table:
    """Return rows of `MEMBER_SCHEMA` for files known by path and objects known by URI, in the order given."""
    rows = []
    for place in paths:
        path = local_path(place)
        if path is None:
            rows.append(MemberRow("", "object", os.fsencode(place)))
        else:
            rows.append(MemberRow(str(path.parent), "folder", os.fsencode(path.name)))
    return _listing(rows).members


def table_listing(place: str, column: str, parts: Sequence[Part]) -> Listing:
    """List the images in a column of a table; see `dermaray.data.image_tables`."""
    rows = [MemberRow(place, "table", column.encode(), part.start, part.rows) for part in parts if part.rows]
    return Listing(_listing(rows).members, sum(part.rows for part in parts), {})


def _listing(rows: list[MemberRow], ignored: Counter[str] | None = None) -> Listing:
    columns = zip(*rows, strict=True) if rows else [[] for _ in MEMBER_SCHEMA]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, MEMBER_SCHEMA, strict=True)]
    return Listing(pa.table(arrays, schema=MEMBER_SCHEMA), len(rows), dict(sorted((ignored or {}).items())))


def _with_images(place: str, listing: Listing) -> Listing:
    if listing.images == 0:
        passed = f" {sum(listing.ignored.values())} files of other kinds are in it." if listing.ignored else ""
        raise DataError(f"{place} holds no image.{passed} Images end in .jpg, .png, .tif, .bmp, .webp, .gif or .dcm")
    return listing


def _is_tar(source: Path) -> bool:
    try:
        return tarfile.is_tarfile(source)
    except TAR_DAMAGED as error:
        raise DataError(f"{source} is a damaged archive: {error}") from error


def _list_folder(source: Path) -> Listing:
    ignored: Counter[str] = Counter()
    names = []
    for folder, _, files in os.walk(source, onerror=_unlistable):
        below = os.path.relpath(folder, source)
        for name in files:
            if is_image_name(PurePath(name)):
                names.append(name if below == "." else os.path.join(below, name))
            else:
                ignored[kind_of(PurePath(name))] += 1
    names.sort(key=lambda name: name.split(os.sep))
    return _listing([MemberRow(str(source), "folder", os.fsencode(name)) for name in names], ignored)


def _unlistable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error


def _list_zip(place: str) -> Listing:
    ignored: Counter[str] = Counter()
    rows = []
    try:
        with opened(place) as file:
            for member in list_zip(file):
                if is_image_name(PurePath(member.name)):
                    name = os.fsencode(member.name)
                    rows.append(MemberRow(place, "zip", name, member.offset, member.size, member.checksum))
                else:
                    ignored[kind_of(PurePath(member.name))] += 1
    except (*ZIP_DAMAGED, pa.ArrowException) as error:
        if is_uri(place) and not isinstance(error, zipfile.BadZipFile):
            raise explained(place, error) from error
        raise DataError(f"{place} is a damaged zip: {error}") from error
    return _listing(rows, ignored)


def _list_tar(source: Path) -> Listing:
    ignored: Counter[str] = Counter()
    rows = []
    with opened(source) as file:
        members = list_tar(file)
    if members is None:
        return _from_start(str(source))
    for name, offset, size in members:
        if is_image_name(PurePath(name)):
            rows.append(MemberRow(str(source), "tar", os.fsencode(name), offset, size))
        else:
            ignored[kind_of(PurePath(name))] += 1
    return _listing(rows, ignored)


def _from_start(place: str) -> Listing:
    """List a tar in which nothing has a place of its own that could be read by itself."""
    row = MemberRow(place, "tar_stream", os.fsencode(name_of(place).name))
    return Listing(_listing([row]).members, None, {})
