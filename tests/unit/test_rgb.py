"""Grey of more than eight bits: what has a known white is shown, what has none is refused."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops, TiffImagePlugin

from dermaray.errors import ImageError
from dermaray.images.decode import decode_frame
from tests.odd_files import encode

RAMP = np.tile(np.arange(256), (32, 1))


@pytest.mark.parametrize(
    ("form", "kind", "mode"), [("PNG", "<u2", "I;16"), ("TIFF", "<u2", "I;16"), ("TIFF", ">u2", "I;16B")]
)
def test_sixteen_bits_keep_their_upper_eight(form: str, kind: str, mode: str) -> None:
    data = encode(Image.fromarray((RAMP * 256 + 255).astype(kind)), form)
    assert Image.open(io.BytesIO(data)).mode == mode
    assert np.array_equal(decode_frame(data, None).pixels, np.repeat(RAMP[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("levels", "mode"),
    [
        (RAMP.astype(np.int32), "I"),
        ((RAMP * 257 * 65_536 // 2).astype(np.int32), "I"),
        (RAMP.astype(np.float32) / 255, "F"),
        (RAMP.astype(np.float32), "F"),
    ],
)
def test_grey_whose_white_nobody_knows_is_refused(levels: np.ndarray[Any, Any], mode: str) -> None:
    data = encode(Image.fromarray(levels), "TIFF")
    assert Image.open(io.BytesIO(data)).mode == mode
    with pytest.raises(ImageError, match=r"\Agrey of .*Save it as grey of 8 bits, or of 16 without a sign\Z") as caught:
        decode_frame(data, None)
    assert caught.value.reason == "unsupported"


def tiff_of(levels: np.ndarray[Any, Any], bits: int, photometric: int) -> bytes:
    """Return an uncompressed TIFF of one strip; Pillow writes neither 12 bits nor white at 0."""
    if bits == 12:
        high, low = levels[:, ::2].astype(np.uint32), levels[:, 1::2].astype(np.uint32)
        packed = high << 12 | low
        strip = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=2).astype(np.uint8).tobytes()
    else:
        strip = levels.astype("<u2").tobytes()
    rows, columns = levels.shape
    entries = [(256, columns), (257, rows), (258, bits), (259, 1), (262, photometric), (273, 0), (277, 1), (278, rows)]
    entries.append((279, len(strip)))
    start = 8 + 2 + 12 * len(entries) + 4
    fields = [struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in entries]
    return struct.pack("<2sHIH", b"II", 42, 8, len(fields)) + b"".join(fields) + bytes(4) + strip


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 1), (16, 0)])
def test_a_tiff_of_fewer_bits_or_with_white_at_0_is_as_bright_as_it_looks(bits: int, photometric: int) -> None:
    levels = RAMP << bits - 8
    data = tiff_of(levels if photometric else (1 << bits) - 1 - levels, bits, photometric)
    assert np.array_equal(decode_frame(data, None).pixels, np.repeat(RAMP[..., None], 3, axis=2))


def tagged(image: Image.Image, **tags: int) -> bytes:
    """Return a TIFF with tags that say something else of it than what Pillow wrote."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        directory[getattr(TiffImagePlugin, name)] = value
    return encode(image, "TIFF", tiffinfo=directory)


def test_levels_with_a_sign_are_refused() -> None:
    data = tagged(Image.fromarray(RAMP.astype(np.uint8)), SAMPLEFORMAT=2)
    with pytest.raises(ImageError, match="a TIFF whose levels have a sign"):
        decode_frame(data, None)


def test_ink_without_adobes_mark_is_no_negative() -> None:
    colours = Image.fromarray(np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1).astype(np.uint8))
    # Pillow writes the negative, as Adobe does, and says so.
    data = encode(ImageChops.invert(colours.convert("CMYK")), "JPEG", quality=95)
    mark = data.index(b"\xff\xee")
    assert data[mark + 4 : mark + 9] == b"Adobe"
    without = data[:mark] + data[mark + 2 + int.from_bytes(data[mark + 2 : mark + 4], "big") :]
    assert np.abs(decode_frame(without, None).pixels.astype(int) - np.asarray(colours)).mean() < 3
    as_usual = encode(colours.convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode_frame(as_usual, None).pixels.astype(int) - np.asarray(colours)).mean() < 3
