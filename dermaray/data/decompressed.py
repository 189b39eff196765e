"""Compressed files, read from their start to their true end: of several streams in a file all, and up to any damage."""

import bz2
import lzma
import zlib
from io import BufferedReader

_PART_BYTES = 256 * 1024
"""Read of a compressed file at a time."""

_MAGIC_BYTES = 13
"""Of a file, which tell whether it is compressed."""

_BZIP2 = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
"""How a block of bzip2 begins, and the end of a stream without any."""

_MOST_JUNK = 511
"""Bytes behind a compressed tar that are no part of one: a header is longer."""


class _Gzip:
    """zlib's decompressor, as those of bz2 and lzma are used."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        """What was given behind the end of the stream."""
        return self._inflate.unused_data

    @property
    def needs_input(self) -> bool:
        """Whether nothing is left of what was given."""
        return not self._inflate.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take some compressed bytes, and return what they or earlier ones come to, at most so much."""
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


_Decompressor = _Gzip | bz2.BZ2Decompressor | lzma.LZMADecompressor


def _decompressor(first: bytes) -> _Decompressor | None:
    """Return what decompresses a file that begins so; None where it is not compressed."""
    if first.startswith(b"\x1f\x8b\x08"):
        return _Gzip()
    # A plain tar begins with a name, which may be anything.
    if first.startswith(b"BZh") and first[4:10] in _BZIP2:
        return bz2.BZ2Decompressor()
    if first.startswith(b"\xfd7zXZ\0") or (first.startswith(b"\x5d\0\0") and any(first[3:5])):
        return lzma.LZMADecompressor()
    return None


class Parts:
    """Reads a file, decompressed where it is not plain, in parts: all that comes before damage, and then its error.

    The standard library's way to read a compressed tar from its start ends with the first of several streams in a file.
    It also takes all that one read comes to at once, and copies what is left of it for every 10 kB: over a bomb for
    twenty seconds. Its other ways take a damaged second stream for the end.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._stream = _decompressor(file.peek(_MAGIC_BYTES))

    def read(self, size: int) -> bytes:
        """Read some bytes, at most so many; none at the end."""
        if self._stream is None:
            return self._file.read1(size)
        while True:
            data = b""
            if self._stream.eof:
                data = self._rest_of(self._stream.unused_data)
                following = _decompressor(data)
                if following is None:
                    if len(data) <= _MOST_JUNK:
                        return b""
                    raise OSError("something else follows the compressed data")
                self._stream = following
            elif self._stream.needs_input and not (data := self._file.read1(_PART_BYTES)):
                raise EOFError("the compressed data ends before its end")
            if read := self._stream.decompress(data, size):
                return read

    def _rest_of(self, data: bytes) -> bytes:
        """Return what follows a stream, enough to tell what it is, without the zeros that some writers put there."""
        while len(data := data.lstrip(b"\0")) <= _MOST_JUNK and (part := self._file.read1(_PART_BYTES)):
            data += part
        return data
