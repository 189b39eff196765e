"""Grey of more than eight bits: what has a known white is shown, what has none is refused."""

import io
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
