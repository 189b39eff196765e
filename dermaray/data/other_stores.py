"""Stores that Arrow does not know and fsspec does, whose errors say what Arrow's would."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs

from dermaray.errors import DataError

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
        filesystem, base = fsspec.core.url_to_fs(uri, **({"encoded": True} if scheme in HTTP else {}))
    # It raises what it pleases, for want of an account for one.
    except Exception as error:
        raise DataError(f"{uri} cannot be opened: {error}") from error
    return pa.fs.PyFileSystem(_Handler(filesystem)), base


def details(filesystem: pa.fs.FileSystem, key: str) -> str:
    """Return all that such a store tells of an object; Arrow keeps no time of it, and no tag. Empty for Arrow's own."""
    handler = getattr(filesystem, "handler", None)
    return repr(sorted(handler.fs.info(key).items())) if isinstance(handler, _Handler) else ""


class _Handler(pa.fs.FSSpecHandler):  # type: ignore[misc]
    """Opens what can be opened: Arrow asks first whether there is such a file, to which any error means no."""

    def open_input_file(self, path: str) -> pa.PythonFile:
        with _in_words_of_arrow():
            return pa.PythonFile(_File(self.fs.open(path, mode="rb")), mode="r")


class _File:
    """An open file whose errors are those that Arrow's raise."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Read as the file does."""
        with _in_words_of_arrow():
            return self._file.read(size)


@contextmanager
def _in_words_of_arrow() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Over HTTP whatever goes wrong is a file that is not there, and its cause another error.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        if isinstance(cause, OSError):
            raise cause from None
        status = getattr(cause, "status", None)
        if status == 404:
            raise FileNotFoundError(str(cause)) from cause
        raise OSError(f"HTTP status {status}" if status else f"{type(cause).__name__}: {cause}") from cause
