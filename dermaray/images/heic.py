"""HEIC, as phones keep what their cameras take; what reads it is the extra `heic`."""

from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array
from dermaray.images.rgb import rgb_pixels

_ANY_CODEC = frozenset((b"mif1", b"msf1"))
_BRANDS = _ANY_CODEC | {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
"""Of ISO/IEC 23008-12, annexes A and B: which a file names first."""


def is_heic(data: bytes) -> bool:
    """Tell whether these are the bytes of a HEIC file."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def heic_pixels(data: bytes, max_pixels: int) -> UInt8Array:
    """Return the primary picture of a HEIC file, upright: uint8 [rows, columns, 3], RGB.

    Args:
        data: The whole file.
        max_pixels: What it may have of them.

    Raises:
        ImageError: It is damaged, too large, or encoded by something else than HEVC.
    """
    try:
        import pillow_heif
    except ImportError:
        raise ImageError("unsupported", "a HEIC picture, which is read after: pip install 'dermaray[heic]'") from None
    try:
        file = pillow_heif.open_heif(data)
        width, height = file.size
        if width * height > max_pixels:
            raise ImageError("too_many_pixels", f"{width}x{height} pixels are more than {max_pixels:,}")
        # libheif turns it by itself; the orientation in its EXIF counts no more.
        return rgb_pixels(file.to_pillow())
    except ImageError:
        raise
    # It raises what it pleases for a damaged file, and for one of another codec.
    except Exception as error:
        if data[8:12] in _ANY_CODEC and b"hvc1" not in data:
            raise ImageError("unsupported", "a HEIF picture that is not encoded by HEVC") from None
        reason = str(error).strip() or type(error).__name__
        raise ImageError("truncated", f"damaged or cut short: {reason}") from None
