"""Tar files: a plain one has its members read where they lie; a compressed or damaged one is read from its start."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, NamedTuple

DAMAGED = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, lzma.LZMAError)
"""What reading a damaged tar raises."""


_Decompressed = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile

_COMPRESSED: dict[bytes, Callable[[BufferedReader], _Decompressed]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x5d\x00\x00\x80": lzma.open,
}
"""What decompresses a file, by its first bytes."""

_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_EXTENSION_BYTES = 1024 * 1024
"""The most that an extended header may hold; the standard library reads whatever size it states into memory."""


_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


class TarMember(NamedTuple):
    """What is no folder in a plain tar.

    Attributes:
        name: As the archive has it.
        offset: Where its content begins in the archive.
        size: Of its content.
        problem: Why it has no content; empty for a file, and for a hard link to one.
    """

    name: str
    offset: int
    size: int
    problem: str = ""


def is_tar(path: Path) -> bool:
    """Tell whether a file is a tar, compressed or not.

    Raises:
        OSError, EOFError, ValueError, zlib.error, lzma.LZMAError: It may be one, and is damaged.
    """
    try:
        with tarfile.open(path, tarinfo=_Strict):
            return True
    except tarfile.TarError:
        return False


def list_tar(file: IO[bytes]) -> list[TarMember] | None:
    """Return what a plain tar holds; None where not all has a place of its own, or the archive is damaged.

    `stream_tar` reads what there is then, and tells of the damage.
    """
    members: list[TarMember] = []
    links: list[tuple[int, str]] = []
    try:
        with tarfile.open(fileobj=file, mode="r:", **_OPTIONS) as archive:
            for info in _each(archive):
                if info.issparse():
                    # What lies there is not the content.
                    return None
                if info.isreg():
                    members.append(TarMember(info.name, info.offset_data, info.size))
                elif not info.isdir():
                    if info.islnk():
                        links.append((len(members), info.linkname))
                    members.append(TarMember(info.name, 0, 0, _problem(info)))
    except DAMAGED:
        return None
    _follow(links, members)
    return members


def _follow(links: list[tuple[int, str]], members: list[TarMember]) -> None:
    """Put in the place of hard links the files that they name: each is stored once, where it has several names."""
    files = {member.name: member for member in members if not member.problem} if links else {}
    for position, target in links:
        name = members[position].name
        if target in files:
            files[name] = members[position] = files[target]._replace(name=name)


def _problem(info: tarfile.TarInfo) -> str:
    """Return why an entry that is neither a file nor a folder has no content of its own."""
    target = f" to {info.linkname}" if info.linkname else ""
    return f"{_KINDS.get(info.type, 'an entry of an unknown kind')}{target} in the archive, not a file"


def read_tar(file: IO[bytes], member: TarMember, limit: int) -> bytes:
    """Return the content of a member, or its first `limit` bytes.

    Raises:
        OSError: The archive has come to end inside it.
    """
    file.seek(member.offset)
    size = min(member.size, limit)
    data = file.read(size)
    if len(data) < size:
        raise OSError("the archive ends inside this member")
    return data


def stream_tar(file: BufferedReader) -> Iterator[tuple[str, IO[bytes] | None, str]]:
    """Read a tar, compressed or not, from its start to its end.

    The standard library's own way with a compressed stream ends with the first of several that follow each other in a
    file, and copies what one read of it came to for each 16 kB that are taken: a bomb then takes twenty seconds.

    Yields:
        A name; what reads that file until the next one is asked for; and where it is no file, None and why. Hard links
        are not followed: what they name has been passed.

    Raises:
        OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError: The archive is damaged from here on.
    """
    parts: Any = _Parts(file)
    with tarfile.open(fileobj=parts, mode="r|", **_OPTIONS) as archive:
        for info in _each(archive):
            if info.isreg():
                yield info.name, archive.extractfile(info), ""
            elif not info.isdir():
                yield info.name, None, _problem(info)


class _Parts:
    """Reads a file, decompressed where it is not plain, in parts: all that comes before damage, and then its error."""

    def __init__(self, file: BufferedReader) -> None:
        first = file.peek()
        opening = next((opening for magic, opening in _COMPRESSED.items() if first.startswith(magic)), None)
        self._file = file if opening is None else opening(file)

    def read(self, size: int) -> bytes:
        """Read some bytes, at most so many; none at the end."""
        return self._file.read1(size)


def _each(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar; the standard library would keep all of them, half a kilobyte each."""
    while (info := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        yield info


class _Strict(tarfile.TarInfo):
    """Where the standard library takes what is no header for the end of the archive, this says that it is none.

    It refuses sizes that are none, too: after a negative one the library would read the same header without end.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Strict":
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _EXTENSIONS and info.size > _EXTENSION_BYTES):
            raise tarfile.HeaderError(f"a header of {info.size:,} bytes")
        return info

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Strict":
        try:
            info = super().fromtarfile(archive)
            # An extended header may state another size than the one that was read before.
            if info.size < 0:
                raise tarfile.HeaderError(f"a member of {info.size:,} bytes")
            return info
        except tarfile.HeaderError as error:
            # These two are how a tar ends; and where there is no tar at all, the library says so itself.
            if archive.offset == 0 or type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):
                raise
            raise OSError(f"{error} at byte {archive.offset:,}") from error


_OPTIONS: dict[str, Any] = {"tarinfo": _Strict, "ignore_zeros": True}
"""The zeros at the end of a tar are passed over: another may follow, where somebody has joined them."""
