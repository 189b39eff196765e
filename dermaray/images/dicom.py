"""The picture in a DICOM file, as a hospital's archive exports it; what reads the file is the extra `dicom`."""

import io
from typing import Any, NamedTuple

import numpy as np

from dermaray.errors import ImageError
from dermaray.images.resize import UInt8Array

_AS_A_FILE = {
    "1.2.840.10008.1.2.4.50": "JPEG",
    "1.2.840.10008.1.2.4.51": "JPEG",
    "1.2.840.10008.1.2.4.90": "JPEG2000",
    "1.2.840.10008.1.2.4.91": "JPEG2000",
}
"""Transfer syntaxes (DICOM PS3.5, annex A.4) that hold a whole image file, and which of Pillow's formats it has."""

_AS_IT_IS = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
"""A JPEG segment by which decoders know that three components are red, green and blue, which else they take for YCbCr.

A later one of the kind counts before it, and a JFIF segment, which says YCbCr, before both."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"


class WholeFile(NamedTuple):
    """A frame that is an image file of its own: its bytes, its format, one of Pillow's, and whether it is negative."""

    data: bytes
    form: str
    negative: bool


def is_dicom(data: bytes) -> bool:
    """Tell whether these are the bytes of a DICOM file."""
    return data[128:132] == b"DICM"


def picture_of(data: bytes, max_pixels: int) -> WholeFile | UInt8Array:
    """Return the first frame of a DICOM file.

    Args:
        data: The whole file.
        max_pixels: What it may have of them.

    Returns:
        A whole image file where the frame is one, otherwise its pixels, uint8 [rows, columns, 3], RGB.

    Raises:
        ImageError: It is damaged, has no picture or too large a one, or one of a kind that is not read.
    """
    try:
        import pydicom
    except ImportError:
        raise ImageError("unsupported", "a DICOM file, which is read after: pip install 'dermaray[dicom]'") from None
    if _DEFLATED in data:
        # It would be inflated as a whole, to whatever size.
        raise ImageError("unsupported", "a DICOM file that is deflated")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dataset:
            raise ImageError("unsupported", "a DICOM file without a picture")
        if (count := dataset.Rows * dataset.Columns) > max_pixels:
            raise ImageError("too_many_pixels", f"{count:,} pixels are more than {max_pixels:,}")
        return _first_frame(dataset)
    except ImageError:
        raise
    # It raises what it pleases for a damaged file.
    except Exception as error:
        raise ImageError("truncated", f"damaged or cut short: {error}") from None


def _first_frame(dataset: Any) -> WholeFile | UInt8Array:
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    form = _AS_A_FILE.get(syntax)
    if form is not None and (form == "JPEG" or _says_all(dataset)):
        frames = int(dataset.get("NumberOfFrames") or 1)
        file = get_frame(dataset.PixelData, 0, number_of_frames=frames)
        if form == "JPEG" and dataset.PhotometricInterpretation == "RGB":
            file = file[:2] + _AS_IT_IS + file[2:]
        return WholeFile(file, form, _is_negative(dataset))
    if dataset.HighBit != dataset.BitsStored - 1:
        raise ImageError("unsupported", "a DICOM file whose levels do not begin with their lowest bit")
    if syntax.is_encapsulated and syntax != _RLE and form is None:
        raise ImageError("unsupported", f"a DICOM file whose picture is encoded by {syntax.name}")
    return _rgb(pixel_array(dataset, index=0), dataset)


def _says_all(dataset: Any) -> bool:
    """Tell whether a JPEG 2000 file shows by itself what the DICOM file says that it does."""
    own = ("RGB", "YBR_RCT", "YBR_ICT", "MONOCHROME1", "MONOCHROME2")
    return bool(dataset.PhotometricInterpretation in own and dataset.BitsStored == 8)


def _rgb(pixels: np.ndarray[Any, Any], dataset: Any) -> UInt8Array:
    """Return pixels as they are shown: coloured, with eight bits each."""
    from pydicom.pixels.processing import apply_color_lut

    bits = dataset.BitsStored
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        # A fourth component would be transparency.
        pixels = apply_color_lut(pixels, dataset)[..., :3]
        bits = _palette_bits(pixels, dataset)
    elif dataset.get("PixelRepresentation") == 1:
        pixels = pixels.astype(np.int32) + (1 << (bits - 1))
    if bits < 8:
        pixels = pixels.astype(np.int32) * 255 // ((1 << bits) - 1)
    shown: UInt8Array = (pixels >> max(bits - 8, 0)).clip(0, 255).astype(np.uint8)
    if _is_negative(dataset):
        shown = 255 - shown
    if shown.ndim == 2:
        shown = np.repeat(shown[..., None], 3, axis=2)
    if shown.shape != (dataset.Rows, dataset.Columns, 3):
        raise ImageError("unsupported", f"a DICOM file whose picture has the shape {list(shown.shape)}")
    return shown


def _palette_bits(colours: np.ndarray[Any, Any], dataset: Any) -> int:
    """Return the bits of a palette's levels: of words some writers fill the lower eight alone, and some all in spite of
    what they state."""
    stated = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    return stated if colours.max(initial=0) < 1 << stated else 8 * colours.itemsize


def _is_negative(dataset: Any) -> bool:
    return bool(dataset.PhotometricInterpretation == "MONOCHROME1")
