"""Files of a source, wherever it lies: a local folder, or a prefix in an object store.

An object store is addressed by a URI, by most by one that `pyarrow.fs.FileSystem.from_uri` understands:

- `s3://bucket/prefix`, with the credentials and the region of the AWS environment variables and configuration files.
  Another store that speaks S3 is named by the environment variable `AWS_ENDPOINT_URL`, or within the URI:
  `s3://bucket/prefix?endpoint_override=host:9000&scheme=http&region=us-east-1`.
- `gs://bucket/prefix` with Google's application default credentials, or `gs://anonymous@bucket/prefix`.
- `abfs://container@account.dfs.core.windows.net/prefix`.

Any other URI is opened by fsspec, where that has the package for it: `http://`, `hf://`, `az://` and so on.

The part from `?` on is kept in the URI of every file, so a manifest can be read where the environment says nothing.
For the same reason a URI with a password in it is refused. In the path, what is no letter, digit or one of `-._~/` is
percent-encoded. A `file://` URI is a local path.
"""

import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs

from dermaray.data.other_stores import HTTP, details, open_store, understood
from dermaray.data.store_errors import STORE_ERRORS, explained, patiently
from dermaray.errors import DataError

T = TypeVar("T")

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<host>[^/?#]*)(?P<key>/[^?#]*)?(?P<query>\?[^#]*)?")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
_SECRET = re.compile(r"[?&](sig|client_secret|secret_key)=")
_BUFFER_BYTES = 256 * 1024
"""Read of an object at a time, at least."""

_MOST_FOLDERS = 1000
"""Folders below a prefix that are listed one by one, which takes a request for each; all together, one for a thousand
objects."""


def is_uri(place: str) -> bool:
    """Tell whether a place is given as a URI with a scheme, rather than as a local path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", place) is not None


def is_text(name: str) -> bool:
    """Tell whether a name can be written into a table: that of a file may be bytes in no encoding."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """Return a name as it can be written: bytes that are in no encoding as `\\xe4`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def check_named(place: str, what: str) -> None:
    """Check that a place can be written into a table.

    Raises:
        DataError: Its name is in no encoding.
    """
    if not is_text(place):
        raise DataError(f"{shown(place)}: the name is not valid UTF-8, and {what}. Rename it")


def local_path(place: str | Path) -> Path | None:
    """Return a place as a local path, or None where it is in an object store.

    Raises:
        DataError: It is a `file://` URI that names no local path.
    """
    if isinstance(place, Path) or not is_uri(place):
        return Path(place)
    if not place.lower().startswith("file:"):
        return None
    return Path(locate(place)[1])


def absolute(place: str) -> str:
    """Return a place as it is found from any folder: a local path in full, a URI as it is."""
    path = local_path(place)
    return place if path is None else str(path.resolve())


@dataclass(frozen=True)
class Tree:
    """What lies below a folder or a prefix.

    Attributes:
        root: Absolute local path, or URI without a slash at its end.
        files: Paths relative to `root`, sorted; hidden ones, and those in hidden folders, left out.
        folders: The same for folders. An object store has only those with something in them.
    """

    root: str
    files: tuple[PurePosixPath, ...]
    folders: tuple[PurePosixPath, ...]

    def uri(self, file: PurePosixPath) -> str:
        """Return the absolute path of one of `files` or `folders`, or its URI."""
        return _place_in(self.root, file)


def list_tree(source: str | Path) -> Tree:
    """List all that lies below a local folder or a prefix in an object store.

    Links to folders are followed, but not to a folder that the link lies in.

    Raises:
        DataError: There is no such folder or prefix, or it cannot be listed.
    """
    folder = local_path(source)
    if folder is not None:
        root = os.path.abspath(folder)
        found = [(PurePosixPath(*Path(p).relative_to(root).parts), is_dir) for p, is_dir in _walk(root, frozenset())]
    else:
        root = _without_slash(str(source))
        found = _list_objects(root)
    return Tree(root, tuple(_files(found)), tuple(sorted({path for path, is_dir in found if is_dir})))


def stream_objects(prefix: str) -> Iterator[Tree]:
    """List the objects below a prefix in an object store in several trees, in order, each as it is known.

    A tree has what lies in a folder below the prefix, or between two of them. All is in one where there are so many
    folders that asking for each takes longer than asking for all, where a key has two slashes in a row, which put it
    into no folder that has a name, and in stores that do not tell of folders.

    Raises:
        DataError: There is no such prefix, or it cannot be listed; see `list_tree`.
    """
    root = _without_slash(prefix)
    if not root.lower().startswith("s3:"):
        yield list_tree(root)
        return
    top = sorted(set(_list_objects(root, recursive=False)))
    if sum(is_dir for _, is_dir in top) > _MOST_FOLDERS or not all(path.parts for path, _ in top):
        yield list_tree(root)
        return
    for is_dir, entries in groupby(top, key=lambda entry: entry[1]):
        paths = tuple(path for path, _ in entries)
        if not is_dir:
            yield Tree(root, paths, ())
            continue
        for folder in paths:
            below = _list_objects(_place_in(root, folder))
            yield Tree(root, tuple(folder / file for file in _files(below)), ())


def read_bytes(place: str | Path, limit: int | None = None) -> bytes:
    """Return what is in a file or an object, or its first `limit` bytes.

    Raises:
        DataError: It is missing or cannot be read.
    """
    path = local_path(place)
    if path is not None:
        try:
            return read_file(path, limit)
        # A name may be none that a file can have.
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{shown(str(path))} cannot be read: {reason}") from error

    def read(filesystem: pa.fs.FileSystem, key: str) -> bytes:
        with filesystem.open_input_file(key) as file:
            data: bytes = file.read() if limit is None else file.read(limit)
            return data

    return _access(str(place), read)


def read_file(path: str | Path, limit: int | None = None) -> bytes:
    """Return what is in a local file, or its first `limit` bytes.

    Raises:
        OSError: It is missing, cannot be read, or is a named pipe or a device, which would block or never end.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    with open(path, "rb") as file:
        # Asked for no more than there is: Python takes memory for all that is asked for.
        return file.read(-1 if limit is None else min(status.st_size + 1, limit))


@contextmanager
def opened(place: str | Path, buffer: int = _BUFFER_BYTES) -> Iterator[io.BufferedReader]:
    """Yield a file or an object, open for reading anywhere in it; reading raises one of `STORE_ERRORS`.

    Args:
        place: The file or the object.
        buffer: Bytes of an object that are fetched at a time, at least.

    Raises:
        DataError: It is missing or cannot be opened.
    """
    path = local_path(place)
    if path is None:
        file = _access(str(place), lambda filesystem, key: filesystem.open_input_file(key))
        with io.BufferedReader(file, buffer) as buffered:
            yield buffered
        return
    try:
        local = path.open("rb")
    except OSError as error:
        raise explained(str(place), error) from error
    with local:
        yield local


def _access(uri: str, access: Callable[[pa.fs.FileSystem, str], T]) -> T:
    """Access an object or a prefix; where its store cannot be reached, again after a while.

    Raises:
        DataError: It is missing or cannot be read.
    """
    filesystem, key = locate(uri)
    try:
        return patiently(uri, lambda: access(filesystem, key))
    except STORE_ERRORS as error:
        raise explained(uri, error) from error


def stamp(place: str | Path) -> str:
    """Return what differs once a file or an object has been written anew; empty where there is none.

    Raises:
        DataError: It cannot be asked.
    """

    def ask(filesystem: pa.fs.FileSystem, key: str) -> str:
        info = filesystem.get_file_info(key)
        if info.type != pa.fs.FileType.File:
            return ""
        return f"{info.size} {info.mtime_ns}{details(filesystem, key)}"

    return _access(str(place), ask)


def locate(place: str | Path) -> tuple[pa.fs.FileSystem, str]:
    """Return the file system of a place, and where in it the place lies.

    Raises:
        DataError: It is no URI of a store that can be opened.
    """
    if isinstance(place, Path) or not is_uri(place):
        return pa.fs.LocalFileSystem(), os.path.abspath(place)
    parts = _parsed(place)
    if parts["scheme"].lower() == "file":
        return pa.fs.LocalFileSystem(), _unquote(parts["key"])
    filesystem, base = _filesystem(parts["scheme"], parts["host"], parts["query"])
    if parts["scheme"].lower() in HTTP:
        return filesystem, str(place)
    return filesystem, f"{base}{_unquote(parts['key'])}".rstrip("/")


def name_of(place: str) -> PurePosixPath:
    """Return the path of a file or an object without bucket and query, decoded: for its stem and its suffix."""
    path = local_path(place)
    return PurePosixPath(path) if path is not None else PurePosixPath(shown(_unquote(_parsed(place)["key"] or "")))


def _files(found: Iterable[tuple[PurePosixPath, bool]]) -> list[PurePosixPath]:
    return sorted(path for path, is_dir in found if not is_dir)


def _walk(folder: str, above: frozenset[str]) -> Iterator[tuple[str, bool]]:
    here = os.path.realpath(folder)
    try:
        with os.scandir(folder) as entries:
            listed = [(entry.path, is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
    for path, is_dir in listed:
        yield path, is_dir
        if is_dir and os.path.realpath(path) not in above | {here}:
            yield from _walk(path, above | {here})


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads to itself: a file that cannot be read.
        return False


def _place_in(root: str, below: PurePosixPath) -> str:
    if not is_uri(root):
        return os.path.join(root, *below.parts)
    base, mark, query = root.partition("?")
    return "/".join([base, *map(quote, below.parts)]) + mark + query


def _without_slash(prefix: str) -> str:
    base, mark, query = prefix.partition("?")
    return f"{base.rstrip('/')}{mark}{query}"


def _list_objects(uri: str, *, recursive: bool = True) -> list[tuple[PurePosixPath, bool]]:
    def ask(filesystem: pa.fs.FileSystem, base: str) -> list[pa.fs.FileInfo] | None:
        try:
            listed: list[pa.fs.FileInfo] = filesystem.get_file_info(pa.fs.FileSelector(base, recursive=recursive))
        except FileNotFoundError:
            return None
        return listed

    listed = _access(uri, ask)
    if listed is None:
        what = "is an object" if _is_object(uri) else "does not exist"
        raise DataError(f"{uri} {what}. A prefix with images below it was expected")
    _, base = locate(uri)
    # Of HTTP the paths are URIs.
    read = _unquote if base == uri else str
    found = [
        (PurePosixPath(read(info.path)).relative_to(read(base)), info.type == pa.fs.FileType.Directory)
        for info in listed
    ]
    # Some stores name folders, others do not.
    found += [(folder, True) for folder in {parent for path, _ in found for parent in path.parents} if folder.parts]
    return [(path, is_dir) for path, is_dir in found if not any(part.startswith(".") for part in path.parts)]


def _is_object(uri: str) -> bool:
    filesystem, key = locate(uri)
    try:
        return bool(filesystem.get_file_info(key).type == pa.fs.FileType.File)
    except STORE_ERRORS:
        return False


def _parsed(uri: str) -> dict[str, str]:
    match = _URI.fullmatch(uri)
    if match is None or re.search(r"\s", uri):
        raise DataError(f"{uri!r} is no URI: a space, # and ? in a name are written %20, %23 and %3F")
    parts = {name: text or "" for name, text in match.groupdict().items()}
    if ":" in parts["host"].rpartition("@")[0] or _SECRET.search(parts["query"]):
        # Not shown: it would be in a log then.
        raise DataError(
            f"a {parts['scheme']}:// URI was given with a secret in it, and URIs are written into manifests. "
            "Give the credentials by environment variables or the store's configuration file"
        )
    if not parts["host"] and parts["scheme"].lower() != "file":
        raise DataError(f"{uri} names no bucket. {parts['scheme']}://BUCKET/PREFIX was expected")
    return parts


@lru_cache(maxsize=32)
def _filesystem(scheme: str, host: str, query: str) -> tuple[pa.fs.FileSystem, str]:
    """Open a bucket once per process: a client of its own per image would mean a connection per image."""
    uri = f"{scheme}://{host}{query}"
    opened = uri
    if scheme in ("gs", "gcs") and "retry_limit_seconds=" not in query:
        # Google's default is a quarter of an hour, spent on credentials that are not there, too. It is asked again
        # (`PAUSES`), and all that has to end before a single image is given up for taking too long.
        opened += f"{'&' if query else '?'}retry_limit_seconds=10"
    try:
        filesystem, base = pa.fs.FileSystem.from_uri(opened)
    except STORE_ERRORS as error:
        if "Unrecognized filesystem type" not in str(error):
            raise explained(uri, error) from error
        filesystem, base = open_store(scheme, host, query)
    # Arrow asks fsspec by itself for hf:// and fsspec+...://.
    except (ImportError, ValueError) as error:
        raise DataError(f"{uri}: {error}") from error
    return understood(filesystem), base.rstrip("/")


def quote(text: str) -> str:
    """Return a path as it stands in a URI."""
    encoded = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in encoded)


def _unquote(text: str) -> str:
    quoted = re.compile(rb"%([0-9A-Fa-f]{2})")
    return quoted.sub(lambda match: bytes([int(match[1], 16)]), text.encode()).decode("utf-8", "surrogateescape")
