"""From bytes to pixels: the one way, for training, bulk scoring and serving alike."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
from PIL import Image, UnidentifiedImageError

from dermaray.errors import ImageError
from dermaray.images.dicom import WholeFile, is_dicom, picture_of
from dermaray.images.heic import heic_pixels, is_heic
from dermaray.images.jpeg import check_scans, ends_in_filling, turbo_pixels
from dermaray.images.resize import UInt8Array, fit, frame_shape, to_frame
from dermaray.images.rgb import rgb_pixels
from dermaray.images.spec import InputSpec

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
DICOM, HEIC = "DICOM", "HEIC"

_ORIENTATION_TAG = 0x0112
# By EXIF orientation, how to turn upright: whether rows become columns; then what to mirror, in OpenCV's numbers.
_BOTH, _UPSIDE_DOWN, _LEFT_RIGHT = -1, 0, 1
_TURNS = {
    2: (False, _LEFT_RIGHT),
    3: (False, _BOTH),
    4: (False, _UPSIDE_DOWN),
    5: (True, None),
    6: (True, _LEFT_RIGHT),
    7: (True, _BOTH),
    8: (True, _UPSIDE_DOWN),
}
# What Pillow raises for a damaged file.
_DAMAGED = (OSError, SyntaxError, EOFError, ValueError, IndexError, KeyError, TypeError, struct.error)
_REFUSING = {b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_REFUSALS = re.compile("cannot handle|unknown pixel mode")
"""Formats that Pillow reads in part, by how they begin, and what it says of the rest."""
_BEGINNINGS = re.compile(rb"\xff\xd8\xff|\x89PNG|II[*+]\0|MM\0[*+]|RIFF....WEBP|GIF8", re.DOTALL)


@dataclass(frozen=True)
class DecodedImage:
    """Pixels for a model, and the size that the image had.

    Attributes:
        pixels: uint8 [rows, columns, 3], RGB, 0 to 255: of the size that the `InputSpec` states, or the frame.
        height: Rows of the image as it was sent, upright, in pixels.
        width: Columns of the image as it was sent, upright, in pixels.
        format: What the bytes are, one of `FORMATS`, `DICOM` or `HEIC`.
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
        data: A whole file in one of `FORMATS`, a HEIC file, or a DICOM file, of which the first frame counts.
        spec: What the model wants.

    Raises:
        ImageError: The bytes are empty, too large, not an image, cut short or of a kind that is not supported.
    """
    with _defects():
        frame = _frame(data, spec)
        return replace(frame, pixels=fit(frame.pixels, spec))


def claimed_pixels(data: bytes) -> int:
    """Return how many pixels a file says that it has, before any is decoded.

    Of HEIC and DICOM it is `MAX_PIXELS`, which are known by what decodes them alone; of what `decode_image` refuses 0.
    """
    if is_heic(data) or is_dicom(data):
        return MAX_PIXELS
    try:
        with _pillow_errors(data), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
    except Exception:
        return 0
    return pixels if pixels <= MAX_PIXELS else 0


def decode_frame(data: bytes, spec: InputSpec | None) -> DecodedImage:
    """Decode one image as `decode_image` does, but leave out the last step: what `fit` cuts off or adds.

    Args:
        data: See `decode_image`.
        spec: What the model wants; None for the picture as it is.

    Raises:
        ImageError: See `decode_image`.
    """
    with _defects():
        return _frame(data, spec)


@contextmanager
def _defects() -> Iterator[None]:
    """Let a decoder's defect cost nobody else's image."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError("unsupported", f"{type(error).__name__}: {error}") from error


def _frame(data: bytes, spec: InputSpec | None) -> DecodedImage:
    _check_bytes(data)
    if is_heic(data):
        return _framed(heic_pixels(data, MAX_PIXELS), spec, HEIC)
    if not is_dicom(data):
        return _decoded(data, spec, FORMATS)
    picture = picture_of(data, MAX_PIXELS)
    if isinstance(picture, WholeFile):
        frame = _decoded(picture.data, spec, (picture.form,))
        return replace(frame, pixels=255 - frame.pixels if picture.negative else frame.pixels, format=DICOM)
    return _framed(picture, spec, DICOM)


def _framed(picture: UInt8Array, spec: InputSpec | None, form: str) -> DecodedImage:
    """Return a whole picture as its frame; see `decode_frame`."""
    height, width = picture.shape[:2]
    pixels = to_frame(picture, frame_shape(height, width, spec), spec) if spec else picture
    return DecodedImage(pixels, height, width, form)


def _decoded(data: bytes, spec: InputSpec | None, formats: tuple[str, ...]) -> DecodedImage:
    """Decode a file of one of Pillow's formats; see `decode_frame`."""
    with _pillow_errors(data), Image.open(io.BytesIO(data), formats=formats) as image:
        width, height = full_size = image.size
        if width * height > MAX_PIXELS:
            raise ImageError("too_many_pixels", f"{width}x{height} pixels are more than {MAX_PIXELS:,}")
        check_scans(image, data)
        swapped, mirrored = _turn_upright(image)
        if swapped:
            width, height = height, width
        shape = frame_shape(height, width, spec) if spec else (height, width)
        if spec and spec.scaled_decoding:
            image.draft(None, shape if swapped else shape[::-1])
        pixels = turbo_pixels(image, data)
        if pixels is None:
            pixels = _pillow_pixels(image, full_size, data)
        if swapped:
            pixels = cv2.transpose(pixels)
        if mirrored is not None:
            pixels = cv2.flip(pixels, mirrored)
        if spec:
            pixels = to_frame(pixels, shape, spec)
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
        if reason := _unread(data):
            raise ImageError("unsupported", reason) from None
        if _BEGINNINGS.match(data):
            raise ImageError("truncated", f"damaged or cut short: no image after the beginning {head}") from None
        raise ImageError("not_an_image", f"not one of {', '.join(FORMATS)}; the bytes begin {head}") from None
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except _DAMAGED as error:
        raise ImageError("truncated", f"damaged or cut short: {error}") from None


def _unread(data: bytes) -> str | None:
    """Return why Pillow does not open a whole file whose format it knows; of others None."""
    for beginning, form in _REFUSING.items():
        if data.startswith(beginning):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    # `Image.open` keeps what its plugin says to itself.
                    Image.OPEN[form][0](io.BytesIO(data), "").close()
            except SyntaxError as error:
                return f"{form}: {error}" if _REFUSALS.search(str(error)) else None
            except _DAMAGED:
                return None
    return None


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


def _turn_upright(image: Image.Image) -> tuple[bool, int | None]:
    """Return how to turn an image that is stored lying, one of `_TURNS`; not at all where the metadata are damaged."""
    as_it_is = False, None
    if image.format == "TIFF":
        return as_it_is  # Pillow turns it while loading, and states the upright size already.
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1), as_it_is)
    except _DAMAGED:
        return as_it_is


def _pillow_pixels(image: Image.Image, full_size: tuple[int, int], data: bytes) -> UInt8Array:
    """Decode what Pillow opened: uint8 [image.height, image.width, 3]. Raises what Pillow raises, or ImageError."""
    if image.format == "PNG":
        _check_png(data)
    image.load()
    if ends_in_filling(image, full_size, data):
        raise ImageError("truncated", "damaged or cut short: the JPEG data end before the picture does")
    return rgb_pixels(image)
