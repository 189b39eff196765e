"""Tar files: a plain one has its members read where they lie; a compressed or damaged one is read from its start."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, NamedTuple

from dermaray.data.decompressed import Parts

DAMAGED = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, lzma.LZMAError)
"""What reading a damaged tar raises."""

_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_EXTENSION_BYTES = 1024 * 1024
"""The most that an extended header may hold; the standard library reads whatever size it states into memory."""

_FOLDERS = (tarfile.DIRTYPE, b"D", b"V")
"""Folders, those of GNU's incremental archives, and a volume's label."""

_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}
"""Entries without a content of their own."""

_PADDING_BLOCKS = 8192
"""Blocks of zeros with which a tar may end: 4 MiB, more than nearly all writers pad to. More of them are taken for the
rest of a tar that did not arrive."""


class TarMember(NamedTuple):
    """An entry of a plain tar, folders apart.

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
    """Return what a plain tar holds; None where a content does not lie there as it is, or the archive is damaged.

    `stream_tar` reads what there is then, and tells of the damage.
    """
    members: list[TarMember] = []
    files = _Files(members)
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Strict) as archive:
            for info in _each(archive):
                if info.issparse():
                    return None
                if info.isreg():
                    members.append(TarMember(info.name, info.offset_data, info.size))
                elif (target := files.before(info)) is not None:
                    members.append(target._replace(name=info.name))
                else:
                    members.append(TarMember(info.name, 0, 0, _problem(info)))
    except DAMAGED:
        return None
    return members


class _Files:
    """The files of a tar by their names, for hard links: a file that has several names is stored once.

    Args:
        members: What has been listed so far; it may grow.
    """

    def __init__(self, members: list[TarMember]) -> None:
        self._members, self._known = members, 0
        self._by_name: dict[str, TarMember] = {}

    def before(self, info: tarfile.TarInfo) -> TarMember | None:
        """Return the latest file of the name that a hard link states; None where there is none, or it is no link."""
        if not info.islnk():
            return None
        # Only now: most archives have no link.
        new, self._known = self._members[self._known :], len(self._members)
        self._by_name.update((member.name, member) for member in new if not member.problem)
        return self._by_name.get(info.linkname)


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

    Yields:
        A name; what reads that file until the next one is asked for; and where it is no file, None and why. Hard links
        are not followed: what they name has been passed.

    Raises:
        OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError: The archive is damaged from here on.
    """
    parts: Any = Parts(file)
    with tarfile.open(fileobj=parts, mode="r|", tarinfo=_Strict) as archive:
        for info in _each(archive):
            if info.isreg():
                yield info.name, archive.extractfile(info), ""
            else:
                yield info.name, None, _problem(info)


def _each(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar, folders apart; the standard library would keep all of them, half a kilobyte each."""
    while (info := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        if info.type not in _FOLDERS:
            yield info


class _Strict(tarfile.TarInfo):
    """Says of what is no header that it is none, where the standard library takes it for the end of the archive.

    It refuses sizes that are none, too: after a negative one the library would read the same header without end. And it
    looks behind the zeros at the end: there is another tar where somebody has joined them, and the rest of this one
    where they are damage.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Strict":
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _EXTENSIONS and info.size > _EXTENSION_BYTES):
            raise tarfile.HeaderError(f"a header of {info.size:,} bytes")
        return info

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Strict":
        for zeros in range(_PADDING_BLOCKS + 1):
            try:
                info = super().fromtarfile(archive)
            except tarfile.HeaderError as error:
                what = type(error).__name__
                if what == "EOFHeaderError":
                    continue
                if archive.offset == 0 and not zeros:
                    # Where there is no tar at all, the library says so itself.
                    raise
                # What is shorter than a header is no part of a tar.
                if zeros and what in ("EmptyHeaderError", "TruncatedHeaderError"):
                    raise tarfile.EOFHeaderError("the end") from error  # type: ignore[attr-defined]
                problem = "no end mark" if what == "EmptyHeaderError" else str(error)
                raise OSError(f"{problem} at byte {archive.fileobj.tell():,}") from error
            # An extended header may state another size than the one that was read before.
            if info.size < 0:
                raise OSError(f"a member of {info.size:,} bytes at byte {archive.offset:,}")
            return info
        raise OSError(f"more zeros than an archive ends with at byte {archive.fileobj.tell():,}")
