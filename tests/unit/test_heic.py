"""HEIC files: the picture in them, or why there is none."""

import io
import sys

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from dermaray.errors import ImageError
from dermaray.images import decode
from dermaray.images.decode import decode_frame, decode_image
from dermaray.images.spec import InputSpec
from tests.odd_files import encode, heic, picture

SPEC = InputSpec(height=32, width=32)


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, SPEC)
    return caught.value.reason


def test_pixels_are_those_of_the_picture() -> None:
    found = decode_frame(heic(picture(0), quality=100), None)
    assert (found.width, found.height, found.format) == (*picture(0).size, "HEIC")
    assert np.abs(found.pixels.astype(int) - np.asarray(picture(0))).mean() < 4
    small = decode_image(heic(picture(0), quality=100), SPEC)
    assert np.abs(small.pixels.astype(int) - decode_image(encode(picture(0), "PNG"), SPEC).pixels).mean() < 4


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_kinds_of_pixels_become_rgb(mode: str) -> None:
    assert decode_image(heic(picture(0).convert(mode)), SPEC).pixels.shape == SPEC.shape


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_ten_bits_become_eight(mode: str) -> None:
    image = picture(0).convert(mode)
    buffer = io.BytesIO()
    deep = np.asarray(image).astype(np.uint16) << 8
    pillow_heif.encode(f"{mode};16", image.size, deep.tobytes(), buffer, quality=100)
    found = decode_frame(buffer.getvalue(), None).pixels
    assert np.abs(found.astype(int) - np.asarray(image.convert("RGB"))).mean() < 4


def test_it_is_shown_upright() -> None:
    # A phone that was held upright keeps a picture that lies, and says how it is to be turned.
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = picture(0).transpose(Image.Transpose.ROTATE_90)
    buffer = io.BytesIO()
    pillow_heif.encode("RGB", lying.size, lying.tobytes(), buffer, quality=95, exif=exif.tobytes())
    found = decode_frame(buffer.getvalue(), None)
    assert (found.width, found.height) == picture(0).size
    assert np.abs(found.pixels.astype(int) - np.asarray(picture(0))).mean() < 6


def test_what_cannot_be_read_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = heic(picture(0))
    for length in (20, 100, len(whole) // 2, len(whole) - 5):
        assert reason_of(whole[:length]) == "truncated"
    assert reason_of(whole.replace(b"heic", b"mif1").replace(b"hvc1", b"av01")) == "unsupported"
    with monkeypatch.context() as patched:
        patched.setattr(decode, "MAX_PIXELS", 100)
        assert reason_of(whole) == "too_many_pixels"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install 'dermaray\[heic\]'"):
        decode_image(whole, SPEC)
