"""From bytes to pixels: the one way, for training, bulk scoring and serving alike."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from dermaray.errors import ImageError
from dermaray.images.spec import InputSpec

UInt8Array = npt.NDArray[np.uint8]

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")

_ORIENTATION_TAG = 0x0112
_QUARTER_TURNS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    **dict(zip((5, 6, 7, 8), _QUARTER_TURNS, strict=True)),
}
# What Pillow raises for a damaged file.
_DAMAGED = (OSError, SyntaxError, EOFError, ValueError, IndexError, KeyError, TypeError, struct.error)
_BEGINNINGS = re.compile(rb"\xff\xd8\xff|\x89PNG|II[*+]\0|MM\0[*+]|RIFF....WEBP|GIF8", re.DOTALL)
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True)
class DecodedImage:
    """Pixels for a model, and the size that the image had.

    Attributes:
        pixels: uint8 [height, width, 3], RGB, 0 to 255, of the size that the `InputSpec` states.
        height: Rows of the image as it was sent, upright, in pixels.
        width: Columns of the image as it was sent, upright, in pixels.
        format: What the bytes are, one of `FORMATS`.
    """

    pixels: UInt8Array
    height: int
    width: int
    format: str


def decode_image(data: bytes, spec: InputSpec) -> DecodedImage:
    """Decode, turn upright, convert to RGB and resize one image.

    The limits `MAX_BYTES` and `MAX_PIXELS` hold before memory for the pixels is taken. Of an animation or a multi-page
    file the first frame counts; transparency is dropped; 16-bit grey keeps its upper eight bits.

    Args:
        data: A whole file in one of `FORMATS`.
        spec: What the model wants.

    Raises:
        ImageError: The bytes are empty, too large, not an image, cut short or of a kind that is not supported.
    """
    _check_bytes(data)
    with _pillow_errors(data), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = full_size = image.size
        if width * height > MAX_PIXELS:
            raise ImageError("too_many_pixels", f"{width}x{height} pixels are more than {MAX_PIXELS:,}")
        turn = _turn_upright(image)
        turned = turn in _QUARTER_TURNS
        if turned:
            width, height = height, width
        if spec.scaled_decoding:
            wanted = (spec.height, spec.width) if turned else (spec.width, spec.height)
            image.draft(None, wanted)
        if image.format == "PNG":
            _check_png(data)
        image.load()
        if _ends_in_filling(image, full_size, data):
            raise ImageError("truncated", "damaged or cut short: the JPEG data end before the picture does")
        rgb = _to_rgb(image)
        upright = rgb if turn is None else rgb.transpose(turn)
        pixels = np.asarray(_resize(upright, spec), dtype=np.uint8)
        # A camera's JPEG that has more pictures after the first.
        found = "JPEG" if image.format == "MPO" else str(image.format)
    return DecodedImage(pixels, height, width, found)


def _check_bytes(data: bytes) -> None:
    if not data:
        raise ImageError("empty", "the file has zero bytes")
    if len(data) > MAX_BYTES:
        raise ImageError("too_large", f"{len(data):,} bytes are more than {MAX_BYTES:,}")


@contextmanager
def _pillow_errors(data: bytes) -> Iterator[None]:
    """Name what went wrong in our own terms: Pillow raises some ten types for a damaged file."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns of damaged metadata, and of sizes that MAX_PIXELS judges.
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        head = data[:8].hex(" ")
        if _BEGINNINGS.match(data):
            raise ImageError("truncated", f"damaged or cut short: no image after the beginning {head}") from None
        raise ImageError("not_an_image", f"not one of {', '.join(FORMATS)}; the bytes begin {head}") from None
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except _DAMAGED as error:
        raise ImageError("truncated", f"damaged or cut short: {error}") from None
    except (MemoryError, NotImplementedError, OverflowError) as error:
        raise ImageError("unsupported", f"{type(error).__name__}: {error}") from None


def _check_png(data: bytes) -> None:
    """Refuse a PNG with damaged pixels: Pillow leaves their checksums unread."""
    view, position = memoryview(data), 8
    while position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + size
        checked = kind == b"IDAT" and end + 4 <= len(data)
        if checked and zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ImageError("truncated", "damaged or cut short: the checksum of the pixels is wrong")
        position = end + 4


def _ends_in_filling(image: Image.Image, full_size: tuple[int, int], data: bytes) -> bool:
    """Tell whether the lowest rows of a JPEG, 17 or more of its full size, are not from its data.

    Where the data end early, libjpeg fills the rest with mid-grey, and Pillow says nothing. Rows that are truly that
    grey are told by their data, which repeat the code of one block up to their end. 17 rows hold one row of blocks.
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
        if kind == 0xDA:
            end = _MARKER.search(data, position)
            return data[position : end.start() if end else len(data)]


def _turn_upright(image: Image.Image) -> Image.Transpose | None:
    """Return how to turn an image that is stored lying, or None; None also where the metadata are damaged."""
    if image.format == "TIFF":
        return None  # Pillow turns it while loading, and states the upright size already.
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except _DAMAGED:
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16-bit values at 255 rather than scaling them.
        grey = np.asarray(image) >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _resize(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Resize with an anti-aliasing filter, so that shrinking does not alias hair into noise."""
    size = (spec.width, spec.height)
    if spec.resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if spec.resize == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR)
    return image.resize(size, Image.Resampling.BILINEAR)
