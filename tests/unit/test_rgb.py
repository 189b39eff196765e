"""Grey of more than eight bits: what has a known white is shown, what has none is refused."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
