"""Stores that Arrow does not know and fsspec does, whose errors say what Arrow's would."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs

from dermaray.errors import DataError

_TELLING = (
    *("etag", "md5", "md5hash", "content-md5", "digest", "crc32c", "sha256", "blob_id"),
    *("mtime", "modified", "updated", "created", "last-modified", "last_modified", "lastmodified"),
)
"""What stores call that by which one writing of an object is told from another."""

_FOR_NOW = (429, 502, 503, 504)
"""Answers over HTTP that say nothing of the object asked for."""

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 7.0
"""How long a server over HTTP may say nothing. It is asked twice each time, and three times with `PAUSES`, which is
less than a minute."""

HTTP = ("http", "https")
"""Schemes of which a whole URI is the name of an object, the part from `?` on included."""


def open_store(scheme: str, host: str, query: str) -> tuple[pa.fs.FileSystem, str]:
    """Return the file system of a kind of store that Arrow does not know, and where in it a bucket lies.

    Raises:
        DataError: fsspec does not know it either, its package is missing, or it does not open the bucket.
    """
    import fsspec

    uri = f"{scheme}://{host}"
    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError as error:
        known = "A local path, s3://, gs:// or abfs:// was expected, or what a package for fsspec opens"
        raise DataError(f"{uri}: unknown kind of store. {known}") from error
    # It names the package that is missing.
    except ImportError as error:
        raise DataError(f"{uri}: {error}") from error
    if query and scheme not in HTTP:
        raise DataError(f"{uri}: settings after a ? are not known here. Received: {query}")
    try:
        # As written: what is signed is the text.
        filesystem, base = fsspec.core.url_to_fs(uri, **(_http_options() if scheme in HTTP else {}))
    # It raises what it pleases, for want of an account for one.
    except Exception as error:
        raise DataError(f"{uri} cannot be opened: {error}") from error
    return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(filesystem)), base


def _http_options() -> dict[str, Any]:
    from fsspec.implementations.http import aiohttp

    # Its own limit is five minutes: what a server says nothing to would be given up for its images first. A long file
    # may take as long as it comes.
    limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
    return {"encoded": True, "client_kwargs": {"timeout": limits}}


def understood(filesystem: pa.fs.FileSystem) -> pa.fs.FileSystem:
    """Return a file system whose errors are understood, whether Arrow opened it, of fsspec's too, or `open_store`."""
    handler = getattr(filesystem, "handler", None)
    return filesystem if handler is None else pa.fs.PyFileSystem(_Handler(handler.fs))


def details(filesystem: pa.fs.FileSystem, key: str) -> str:
    """Return by what such a store tells whether an object was written anew; empty for Arrow's own."""
    handler = getattr(filesystem, "handler", None)
    if not isinstance(handler, _Handler):
        return ""
    with _in_words_of_arrow():
        known = handler.fs.info(key)
    return repr(sorted((name, value) for name, value in known.items() if name.lower() in _TELLING))


class _Handler(pa.fs.FSSpecHandler):  # type: ignore[misc]
    """Takes no error for a file that is not there, as Arrow's own does."""

    def open_input_file(self, path: str) -> pa.PythonFile:
        with _in_words_of_arrow():
            return pa.PythonFile(_File(self.fs.open(path, mode="rb")), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        with _in_words_of_arrow():
            return pa.PythonFile(_File(self.fs.open(path, mode="wb")), mode="w")

    def create_dir(self, path: str, recursive: bool) -> None:
        with _in_words_of_arrow():
            super().create_dir(path, recursive)

    def delete_dir(self, path: str) -> None:
        with _in_words_of_arrow():
            super().delete_dir(path)

    def delete_file(self, path: str) -> None:
        with _in_words_of_arrow():
            super().delete_file(path)

    def get_file_info(self, paths: list[str]) -> list[pa.fs.FileInfo]:
        found = []
        for path in paths:
            try:
                with _in_words_of_arrow():
                    found.append(self._create_file_info(path, self.fs.info(path)))
            except FileNotFoundError:
                found.append(pa.fs.FileInfo(path, pa.fs.FileType.NotFound))
        return found

    def get_file_info_selector(self, selector: pa.fs.FileSelector) -> Any:
        if _lists_at_once(self.fs):
            with _in_words_of_arrow():
                return super().get_file_info_selector(selector)
        found = dict(self._below(selector.base_dir, recursive=selector.recursive, above=frozenset()))
        if not found:
            # Whether there is such a folder, the store is asked in another way.
            with _in_words_of_arrow():
                return super().get_file_info_selector(selector)
        return [self._create_file_info(path, info) for path, info in sorted(found.items())]

    def _below(self, folder: str, *, recursive: bool, above: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what lies below a folder: fsspec's own walk passes over what cannot be listed without a word."""
        here = above | {folder.strip("/")}
        try:
            with _in_words_of_arrow():
                entries = self.fs.ls(folder, detail=True)
        # A link to what is not there, or what was removed meanwhile.
        except FileNotFoundError:
            return
        for info in entries:
            path = info["name"]
            if path.strip("/") in here:
                continue
            yield path, info
            if recursive and info["type"] == "directory":
                yield from self._below(path, recursive=True, above=here)


class _File:
    """An open file whose errors are those that Arrow's raise."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> int:
        """Write all of some bytes."""
        with _in_words_of_arrow():
            return self._file.write(data)

    def flush(self) -> None:
        """Send what was written, as far as the store takes it before the end."""
        with _in_words_of_arrow():
            self._file.flush()

    def close(self) -> None:
        """End the file; one that was written is there then."""
        with _in_words_of_arrow():
            self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes, or all; a server that does not say how many there are sends a few at a time."""
        parts: list[bytes] = []
        with _in_words_of_arrow():
            if size < 0:
                return self._file.read()
            while size > 0 and (part := self._file.read(size)):
                parts.append(part)
                size -= len(part)
        return b"".join(parts)


def _lists_at_once(filesystem: Any) -> bool:
    """Tell whether a store of fsspec's has a way of its own to list all below a prefix, in place of a walk."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    kind = type(filesystem)
    if isinstance(filesystem, AsyncFileSystem) and filesystem.async_impl:
        return kind._find is not AsyncFileSystem._find
    return kind.find is not AbstractFileSystem.find


def _status_of(error: BaseException) -> int | None:
    """Return the answer over HTTP that an error tells of, by whichever name its package has for it."""
    response = getattr(error, "response", None)
    for teller in (error, response):
        for name in ("status", "status_code", "code"):
            if isinstance(status := getattr(teller, name, None), int):
                return status
    return None


@contextmanager
def _in_words_of_arrow() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Over HTTP whatever goes wrong is a file that is not there, and its cause another error.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        if isinstance(cause, OSError):
            raise cause from None
        if isinstance(cause, NotImplementedError):
            raise OSError("nothing can be written there") from cause
        status = _status_of(cause)
        if status == 404:
            raise FileNotFoundError(str(cause)) from cause
        if status in _FOR_NOW or status == 403:
            raise OSError(f"HTTP status {status}") from cause
        raise OSError(f"the server answers {status}" if status else f"{type(cause).__name__}: {cause}") from cause
