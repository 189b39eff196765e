"""Zip files, here or in an object store, read in place: listed once, each member then read by itself.

The standard library reads a zip's whole directory before it gives a member; a task that wants a hundred of a million
members would spend its time on that. Of a member that was listed, its place and its size are known.
"""

import bz2
import lzma
import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

DAMAGED = (
    *(OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    # For an encrypted member, and for an unknown compression.
    *(RuntimeError, NotImplementedError),
)
"""What reading a damaged zip raises."""

_BEGINNINGS = (b"PK\3\4", b"PK\5\6")
"""Of a member, and of the directory of a zip without any."""

_HEADER = struct.Struct("<4s2xHH16xHH")
_ENTRY = struct.Struct("<28xHHH12x")
"""Of the directory, up to a name: how long that, the extra fields and the comment are."""

_OFFSET = 42
"""Of the directory, to where its first entry says that its member begins."""

_ENCRYPTED = 0x1
_UTF_8 = 0x8
"""In the second byte of an entry's flags."""

_EXTRA_BYTES = 512
"""Read with a header, in the hope that what stands between it and the data is no longer: most take one request."""


class ZipMember(NamedTuple):
    """A file in a zip: its name, where it begins in the archive, its size there, and the CRC-32 of its content."""

    name: str
    offset: int
    size: int
    checksum: int


def begins_as_zip(path: Path) -> bool:
    """Tell whether a file begins as a zip does that has nothing before it."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) in _BEGINNINGS
    except OSError:
        return False


_FURTHEST = (1 << 63) - 1
"""The largest number that a row of `MEMBER_SCHEMA` holds."""


def list_zip(file: IO[bytes]) -> tuple[list[ZipMember], bool]:
    """Return the files of a zip, in the order of its directory, and whether another zip stands before it in the file.

    Raises:
        zipfile.BadZipFile: It is damaged.
    """
    try:
        archive = zipfile.ZipFile(file)
    except UnicodeDecodeError:
        archive = zipfile.ZipFile(_Unclaimed(file))
    with archive:
        entries = archive.infolist()
        return [_member(info) for info in entries if not info.is_dir()], _is_joined(file, archive)


def _is_joined(file: IO[bytes], archive: zipfile.ZipFile) -> bool:
    """Tell whether a zip's members lie further on than its directory says, and the file begins with another's."""
    if not archive.infolist():
        return False
    file.seek(archive.start_dir + _OFFSET)
    said = int.from_bytes(file.read(4), "little")
    if archive.infolist()[0].header_offset <= said:
        return False
    file.seek(0)
    return file.read(4) == _BEGINNINGS[0]


def _member(info: zipfile.ZipInfo) -> ZipMember:
    name = info.filename
    if not info.flag_bits & _UTF_8 << 8:
        # Taken for characters of MS-DOS. Apple's are UTF-8 and do not say so.
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    # Where no file can reach, it is damaged.
    offset, size = (min(number, _FURTHEST) for number in (info.header_offset, info.compress_size))
    return ZipMember(name, offset, size, info.CRC)


class _Unclaimed:
    """A zip whose directory does not claim to be UTF-8 where it is not: for one such name the library takes nothing.

    It takes these names as it takes any that claim nothing, by the characters of MS-DOS.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Read as the file does; the library reads the directory at once."""
        data, at = bytearray(self._file.read(size)), 0
        while data[at : at + 4] == b"PK\1\2" and len(data) >= at + _ENTRY.size:
            name, extra, comment = _ENTRY.unpack_from(data, at)
            start = at + _ENTRY.size
            try:
                data[start : start + name].decode()
            except UnicodeDecodeError:
                data[at + 9] &= ~_UTF_8
            at = start + name + extra + comment
        return bytes(data)


def read_zip(file: IO[bytes], member: ZipMember, limit: int) -> bytes:
    """Return the content of a member, or its first `limit` bytes.

    Raises:
        zipfile.BadZipFile: The member is damaged, or not the one that was listed.
        RuntimeError: It is encrypted.
        NotImplementedError: Its compression is not known.
        zlib.error, EOFError, OSError: See those of the decompressors.
    """
    file.seek(member.offset)
    # A deflated file may be a little longer than what is in it.
    size = min(member.size, limit + limit // 1000 + 64)
    read = file.read(_HEADER.size + len(member.name.encode(errors="surrogateescape")) + _EXTRA_BYTES + size)
    signature, flags, method, name, extra = _HEADER.unpack_from(read)
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile("there is no member where the directory says so")
    if flags & _ENCRYPTED:
        raise RuntimeError("it is encrypted")
    start = _HEADER.size + name + extra
    data = read[start : start + size]
    if len(data) < size:
        # Read past all that stands before the content, however much that is.
        file.seek(member.offset + start + len(data))
        data += file.read(size - len(data))
    content, whole = _unpacked(method, data, limit)
    if not whole and len(content) < limit:
        raise zipfile.BadZipFile("its data end before the file does")
    if whole and zlib.crc32(content) != member.checksum:
        raise zipfile.BadZipFile("its checksum is wrong")
    return content


def _unpacked(method: int, data: bytes, limit: int) -> tuple[bytes, bool]:
    """Return what packed data hold, or its first `limit` bytes, and whether that is all; never makes more of them."""
    if method == zipfile.ZIP_STORED:
        return data[:limit], len(data) <= limit
    if method == zipfile.ZIP_DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        return inflater.decompress(data, limit), inflater.eof
    if method == zipfile.ZIP_BZIP2:
        bzip = bz2.BZ2Decompressor()
        return bzip.decompress(data, limit), bzip.eof
    if method == zipfile.ZIP_LZMA:
        # After a version the size of the properties, and these: APPNOTE.TXT, section 5.8.8.
        (size,) = struct.unpack_from("<2xH", data)
        packed, dictionary = struct.unpack_from("<BI", data, 4)
        options = {"lc": packed % 9, "lp": packed // 9 % 5, "pb": packed // 45, "dict_size": dictionary}
        xz = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, **options}])
        return xz.decompress(data[4 + size :], limit), xz.eof
    raise NotImplementedError(f"compression method {method} is not known")
