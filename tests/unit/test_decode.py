import io
import pickle
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermaray.data.synthetic import render_lesion
from dermaray.errors import ImageError
from dermaray.images import decode
from dermaray.images import resize as resizing
from dermaray.images.decode import FORMATS, decode_image
from dermaray.images.resize import UInt8Array, resize
from dermaray.images.spec import InputSpec

SMALL = InputSpec(height=32, width=48)
# How an upright image must be turned to be stored under each EXIF orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def quadrants(height: int, width: int) -> UInt8Array:
    """Return red, green, blue and white, each in a quarter: no two orientations look the same."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    return pixels


def difference(a: UInt8Array, b: UInt8Array) -> float:
    return float(np.abs(a.astype(int) - b).mean())


LESION = Image.fromarray(render_lesion("nevus", 3, (240, 320)))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("scaled", [True, False])
def test_every_format_gives_rgb_of_the_size_asked_for(form: str, scaled: bool) -> None:
    spec = InputSpec(height=60, width=80, scaled_decoding=scaled)
    decoded = decode_image(encode(LESION, form), spec)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape == spec.shape
    assert (decoded.height, decoded.width) == (240, 320)
    # GIF has 256 colours at most.
    assert difference(decoded.pixels, resize(np.asarray(LESION), (60, 80))) < 5


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *((form, "L") for form in ("JPEG", "PNG", "TIFF", "BMP", "GIF")),
        *((form, "P") for form in ("PNG", "TIFF", "BMP", "GIF")),
        *((form, "RGBA") for form in ("PNG", "TIFF", "BMP", "WEBP")),
        *((form, "LA") for form in ("PNG", "TIFF")),
        *((form, "1") for form in ("PNG", "TIFF", "BMP", "GIF")),
        ("JPEG", "CMYK"),
        ("TIFF", "CMYK"),
    ],
)
def test_every_mode_shows_the_same_picture(form: str, mode: str) -> None:
    image = LESION.convert(mode)
    spec = InputSpec(height=60, width=80)
    expected = resize(np.asarray(image.convert("RGB")), (60, 80))
    lossy = form in ("JPEG", "WEBP")
    assert difference(decode_image(encode(image, form), spec).pixels, expected) <= (2 if lossy else 0)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_upper_bits(form: str) -> None:
    values = np.repeat(np.array([[0x0000, 0x40FF], [0x8000, 0xFFFF]], np.uint16), 16, 0).repeat(24, 1)
    image = Image.fromarray(values)
    assert image.mode == "I;16"
    pixels = decode_image(encode(image, form), SMALL).pixels
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[0, -1].tolist() == [0x40] * 3
    assert pixels[-1, 0].tolist() == [0x80] * 3
    assert pixels[-1, -1].tolist() == [0xFF] * 3


def test_transparency_is_dropped() -> None:
    image = Image.new("RGBA", (48, 32), (200, 10, 20, 0))
    assert (decode_image(encode(image, "PNG"), SMALL).pixels == (200, 10, 20)).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_counts(form: str) -> None:
    red, blue = (Image.new("RGB", (48, 32), colour) for colour in ("red", "blue"))
    data = encode(red, form, save_all=True, append_images=[blue], **({"lossless": True} if form == "WEBP" else {}))
    assert (decode_image(data, SMALL).pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_upright(form: str, scaled: bool, orientation: int) -> None:
    upright = Image.fromarray(quadrants(128, 192))
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(upright if turn is None else upright.transpose(turn), form, exif=exif)
    decoded = decode_image(data, InputSpec(height=32, width=48, scaled_decoding=scaled))
    assert (decoded.height, decoded.width) == (128, 192)
    corners = decoded.pixels[4::24, 4::36], quadrants(32, 48)[4::24, 4::36]
    assert difference(*corners) < 5


def test_sixteen_bit_grey_is_turned_upright_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.zeros((48, 32), np.uint16)
    values[:24] = 0xFFFF
    decoded = decode_image(encode(Image.fromarray(values), "PNG", exif=exif), SMALL)
    assert (decoded.height, decoded.width) == (32, 48)
    assert decoded.pixels[:, 30:].min() == 255
    assert decoded.pixels[:, :18].max() == 0


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(96, 96), (180, 180), (100, 300)])
def test_scaled_decoding_stays_close(resize: str, size: tuple[int, int]) -> None:
    pixels = render_lesion("melanoma", 5, (600, 800))
    data = encode(Image.fromarray(pixels), "JPEG", quality=90)
    fast, exact = (
        decode_image(data, InputSpec(height=size[0], width=size[1], resize=resize, scaled_decoding=scaled)).pixels
        for scaled in (True, False)
    )
    assert fast.shape == (*size, 3)
    # Measured: 0.22 to 0.71 grey levels.
    assert difference(fast, exact) < 1.0


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("picture", [(600, 800), (100, 2000), (1700, 90)])
@pytest.mark.parametrize("size", [(599, 799), (300, 400), (100, 350), (150, 800), (75, 100), (16, 16), (1200, 1600)])
def test_scaled_decoding_never_goes_below_the_frame(
    picture: tuple[int, int], size: tuple[int, int], resize: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[int, ...]] = []
    resized: list[tuple[tuple[int, ...], tuple[int, int]]] = []
    to_frame, to_shape = decode.to_frame, resizing.resize
    monkeypatch.setattr(decode, "to_frame", lambda p, *how: decoded.append(p.shape[:2]) or to_frame(p, *how))
    monkeypatch.setattr(resizing, "resize", lambda p, to: resized.append((p.shape[:2], to)) or to_shape(p, to))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = picture if orientation == 6 else picture[::-1]
    spec = InputSpec(height=size[0], width=size[1], resize=resize)
    decode_image(encode(Image.new("RGB", lying), "JPEG", exif=exif), spec)
    [upright], [(kept, frame)] = decoded, resized
    times = min(picture[0] // frame[0], picture[1] // frame[1])
    scale = next((s for s in (8, 4, 2) if s <= times), 1)
    assert upright == (-(-picture[0] // scale), -(-picture[1] // scale))
    assert scale == 1 or (kept[0] >= frame[0] and kept[1] >= frame[1])


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, SMALL)
    assert caught.value.reason in ImageError.REASONS
    return caught.value.reason


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (10_001, 10_000), (100_000_001, 1)])
def test_a_header_that_claims_too_many_pixels_is_enough(width: int, height: int) -> None:
    assert reason_of(png_claiming(width, height)) == "too_many_pixels"


def test_no_decoder_sees_a_jpeg_that_claims_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    for decoder in ("_pillow_pixels", "turbo_pixels"):
        monkeypatch.setattr(decode, decoder, lambda *_: pytest.fail("memory for the pixels was taken"))
    data = encode(LESION, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    for height, width in [(65_500, 65_500), (10_000, 10_001)]:
        assert reason_of(data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]) == "too_many_pixels"


def test_limits_are_the_largest_that_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("RGB", (48, 32)), "PNG")
    monkeypatch.setattr(decode, "MAX_PIXELS", 48 * 32)
    monkeypatch.setattr(decode, "MAX_BYTES", len(data))
    decode_image(data, SMALL)
    monkeypatch.setattr(decode, "MAX_PIXELS", 48 * 32 - 1)
    assert reason_of(data) == "too_many_pixels"
    monkeypatch.setattr(decode, "MAX_BYTES", len(data) - 1)
    assert reason_of(data) == "too_large"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!doctype html><title>404 Not Found</title>", "not_an_image"),
        (b"\0" * 4096, "not_an_image"),
        (b"%PDF-1.7\n", "not_an_image"),
        (encode(LESION, "PPM"), "not_an_image"),
    ],
)
def test_what_is_no_image(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_a_whole_file_of_a_kind_that_is_not_read_is_not_called_damaged() -> None:
    jpeg, tiff = encode(LESION, "JPEG"), encode(LESION.convert("F"), "TIFF")
    bits = jpeg.index(b"\xff\xc0") + 4
    twelve = jpeg[:bits] + b"\x0c" + jpeg[bits + 1 :]
    # The tag of bits of a sample: one short.
    entry = tiff.index(b"\x02\x01\x03\0\x01\0\0\0\x20\0")
    double = tiff[: entry + 8] + b"\x40" + tiff[entry + 9 :]
    for data in (twelve, double):
        assert reason_of(data) == "unsupported"
        assert reason_of(data[:40]) == "truncated"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_is_cut_short(form: str, share: float) -> None:
    data = encode(LESION, form)
    assert reason_of(data[: int(len(data) * share)]) == "truncated"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0"])
def test_damaged_metadata_leave_the_picture_as_it_is(form: str, exif: bytes) -> None:
    decoded = decode_image(encode(LESION, form, exif=exif), SMALL)
    assert difference(decoded.pixels, decode_image(encode(LESION, form), SMALL).pixels) < 1


def test_metadata_that_cannot_be_written_again_do_no_harm() -> None:
    # Orientation 6, and a width (0x0100) that is three bytes rather than a number.
    entries = struct.pack("<HHHI4sHHII", 2, 0x0100, 1, 3, b"abc", 0x0112, 3, 1, 6)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + entries + bytes(4)
    decoded = decode_image(encode(LESION, "JPEG", exif=exif), SMALL)
    assert (decoded.height, decoded.width) == (320, 240)


def test_a_jpeg_with_several_pictures_is_a_jpeg() -> None:
    data = encode(LESION, "MPO", save_all=True, append_images=[LESION.rotate(90)])
    decoded = decode_image(data, SMALL)
    assert decoded.format == "JPEG"
    assert difference(decoded.pixels, decode_image(encode(LESION, "JPEG"), SMALL).pixels) < 1


def test_a_png_with_damage_that_can_still_be_inflated() -> None:
    data = bytearray(encode(LESION, "PNG"))
    middle = len(data) // 2
    for position in range(middle, middle + 64):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        assert reason_of(bytes(damaged)) == "truncated"


def test_a_png_that_lacks_only_its_end_mark_is_whole() -> None:
    data = encode(LESION, "PNG")
    np.testing.assert_array_equal(decode_image(data[:-12], SMALL).pixels, decode_image(data, SMALL).pixels)


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_adobe_deflate"])
def test_a_tiff_that_lost_its_directory_is_cut_short_rather_than_no_image(compression: str) -> None:
    data = encode(LESION, "TIFF", compression=compression)
    assert reason_of(data[: len(data) // 2]) == "truncated"


@pytest.mark.parametrize("form", FORMATS)
def test_damage_anywhere_gives_an_image_or_an_image_error(form: str) -> None:
    rng = np.random.default_rng(0)
    data = encode(LESION.resize((48, 32)), form)
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, rng.choice([64, len(data)]), 4):
            damaged[position] = rng.integers(256)
        with suppress(ImageError):
            assert decode_image(bytes(damaged), SMALL).pixels.shape == SMALL.shape


def test_a_message_says_what_was_received() -> None:
    with pytest.raises(ImageError, match=r"not one of JPEG, PNG, TIFF, BMP, WEBP, GIF; the bytes begin 3c 21 64"):
        decode_image(b"<!doctype html>", SMALL)
    with pytest.raises(ImageError, match=r"10001x10000 pixels are more than 100,000,000"):
        decode_image(png_claiming(10_001, 10_000), SMALL)


def test_an_image_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("truncated", "cut short")))
    assert isinstance(error, ImageError)
    assert (error.reason, str(error)) == ("truncated", "cut short")


def test_a_reason_is_one_of_those_that_programs_match() -> None:
    with pytest.raises(ValueError, match=r"Received: reason='odd'"):
        ImageError("odd", "message")
