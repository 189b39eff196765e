"""From bytes to pixels: the one way, for training, bulk scoring and serving alike."""

import io
import warnings
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


@dataclass(frozen=True)
class DecodedImage:
    """Pixels for a model, and the size that the image had.

    Attributes:
        pixels: uint8 [height, width, 3], RGB, 0 to 255, of the size that the `InputSpec` states.
        height: Rows of the image as it was sent, upright, in pixels.
        width: Columns of the image as it was sent, upright, in pixels.
    """

    pixels: UInt8Array
    height: int
    width: int


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
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError("too_many_pixels", f"{width}x{height} pixels are more than {MAX_PIXELS:,}")
        # Of a TIFF, Pillow states the upright size already.
        turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8)
        if turned:
            width, height = height, width
        if spec.scaled_decoding:
            wanted = (spec.height, spec.width) if turned else (spec.width, spec.height)
            image.draft(None, wanted)
        upright = ImageOps.exif_transpose(_to_rgb(image))
        pixels = np.asarray(_resize(upright, spec), dtype=np.uint8)
    return DecodedImage(pixels, height, width)


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
        raise ImageError("not_an_image", f"not one of {', '.join(FORMATS)}; the bytes begin {head}") from None
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except (OSError, SyntaxError, EOFError, ValueError, IndexError, KeyError, TypeError) as error:
        raise ImageError("truncated", f"damaged or cut short: {error}") from None
    except (MemoryError, NotImplementedError, OverflowError) as error:
        raise ImageError("unsupported", f"{type(error).__name__}: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16-bit values at 255 rather than scaling them.
        grey = np.asarray(image, dtype=np.int64) >> 8
        upright = Image.fromarray(grey.clip(0, 255).astype(np.uint8), mode=None).convert("RGB")
        upright.info = image.info
        return upright
    return image if image.mode == "RGB" else image.convert("RGB")


def _resize(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Resize with an anti-aliasing filter, so that shrinking does not alias hair into noise."""
    size = (spec.width, spec.height)
    if spec.resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if spec.resize == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR)
    return image.resize(size, Image.Resampling.BILINEAR)
