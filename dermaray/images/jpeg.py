"""What Pillow lacks for JPEG: speed, and an eye for data that end before the picture does."""

import re

import numpy as np
import simplejpeg
from PIL import Image

from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array

_DAMAGE = re.compile(
    "premature end of data segment|[Bb]ad (Huffman|arithmetic) code|instead of RST|nconsistent progress"
)
"""Of TurboJPEG's warnings, those of which a part of the picture is made up; Pillow passes over all of them.

It tells the first alone: behind a lesser one they are not seen.
"""

MAX_SCANS = 100
"""Of a JPEG; encoders write ten or so into a progressive one."""

_SCAN, _END = 0xDA, 0xD9

_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
"""One that has a length, or ends the picture. Bytes 0xFF that fill up before it are no part of it: a file may be padded
with a million of them."""


def check_scans(image: Image.Image, data: bytes) -> None:
    """Refuse a JPEG of more scans than a picture needs: each takes as long as all of the picture.

    Args:
        image: The file as Pillow opened it.
        data: The whole file.

    Raises:
        ImageError: It has more than `MAX_SCANS`.
    """
    # A quick look first: there are no more scans than such bytes.
    if image.format not in ("JPEG", "MPO") or data.count(bytes([0xFF, _SCAN])) <= MAX_SCANS:
        return
    position, scans = 2, 0
    while (found := _MARKER.search(data, position)) and data[found.end() - 1] != _END:
        if data[found.end() - 1] == _SCAN and (scans := scans + 1) > MAX_SCANS:
            raise ImageError("unsupported", f"a JPEG of more than {MAX_SCANS} scans")
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")


def turbo_pixels(image: Image.Image, data: bytes) -> UInt8Array | None:
    """Decode a JPEG by TurboJPEG: Pillow's pixels to the byte, but sooner, and only from data that are beyond doubt.

    Args:
        image: The file as Pillow opened it, not loaded yet. Its size is the one to decode to, as `draft` left it.
        data: The whole file.

    Returns:
        uint8 [image.height, image.width, 3], RGB. None leaves the file to Pillow: it is of another format or mode, or
        TurboJPEG cannot read it, or would warn of what it read.

    Raises:
        ImageError: The data are damaged, so that a part of the picture would be made up.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    # TurboJPEG reads the header anew. Should it read a larger size than was judged, this has no room for that.
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    try:
        # It scales by any n/8, to the size asked for. From 8 pixels on no two n share a size: it is the n of `draft`.
        decoded = simplejpeg.decode_jpeg(
            data, "RGB", min_height=image.height, min_width=image.width, buffer=pixels, strict=True
        )
    except ValueError as error:
        if _DAMAGE.search(str(error)):
            raise ImageError("truncated", f"damaged or cut short: {error}") from None
        return None
    return pixels if decoded.shape == pixels.shape else None


def ends_in_filling(image: Image.Image, full_size: tuple[int, int], data: bytes) -> bool:
    """Tell whether the lowest rows of a JPEG, 17 or more of its full size, are not from its data.

    Where the data end early, libjpeg fills the rest with mid-grey, and Pillow says nothing. Rows that are truly that
    grey are told by their data, which repeat the code of one block up to their end. 17 rows hold one row of blocks.

    Args:
        image: The file as Pillow loaded it, at any scale; False where it is no JPEG.
        full_size: Its (width, height) unscaled, in pixels.
        data: The whole file.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L") or min(full_size) < 32:
        return False
    rows = 16 * image.height // full_size[1] + 1
    if (np.asarray(image.crop((0, image.height - rows, image.width, image.height))) != 128).any():
        return False
    # The last byte may be padding.
    tail = _first_scan(data).replace(b"\xff\x00", b"\xff")[-13:-1]
    bits, blocks = int.from_bytes(tail, "big"), full_size[0] // (8 if image.mode == "L" else 16)

    def repeats(period: int) -> bool:
        compared = min(8 * len(tail), (blocks - 1) * period - 8) - period
        return compared >= 12 and (bits ^ bits >> period) & ((1 << compared) - 1) == 0

    return not any(repeats(period) for period in range(1, 49))


def _first_scan(data: bytes) -> bytes:
    """Return the entropy-coded data of a JPEG's first scan, or what is there of it."""
    position = 2
    while True:
        while data[position + 1] == 0xFF:  # Fill bytes may stand before a marker.
            position += 1
        kind, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        position += 2 + size
        if kind == _SCAN:
            end = _MARKER.search(data, position)
            return data[position : end.start() if end else len(data)].rstrip(b"\xff")
