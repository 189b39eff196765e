"""JPEG by two decoders: the same pixels, and nothing that either of them has made up."""

import io
import itertools
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from dermaray.data.synthetic import render_lesion
from dermaray.errors import ImageError
from dermaray.images import decode
from dermaray.images.decode import decode_image
from dermaray.images.jpeg import turbo_pixels
from dermaray.images.resize import UInt8Array
from dermaray.images.spec import InputSpec
from tests.odd_files import encode

SMALL = InputSpec(height=32, width=48)
LESION = Image.fromarray(render_lesion("nevus", 3, (240, 320)))


def by_both(data: bytes, scale: int) -> tuple[UInt8Array | None, UInt8Array]:
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (max(image.width // scale, 1), max(image.height // scale, 1)))
        return turbo_pixels(image, data), np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "4:4:0", "4:1:1"])
@pytest.mark.parametrize("quality", [30, 90, 100])
@pytest.mark.parametrize("option", ["optimize", "progressive", "restart_marker_rows"])
@pytest.mark.parametrize("size", [(240, 320), (239, 317), (33, 9), (8, 2), (8, 241)])
def test_both_decoders_give_the_same_pixels(mode: str, quality: int, option: str, size: tuple[int, int]) -> None:
    picture = LESION.crop((60, 0, 60 + size[1], size[0]))
    if ":" in mode:
        kinds = [simplejpeg.encode_jpeg(np.asarray(picture), quality, colorsubsampling=mode.replace(":", ""))]
    else:
        image = picture.convert(mode)
        kinds = [encode(image, "JPEG", quality=quality, subsampling=s, **{option: True}) for s in (0, 1, 2)]
        kinds.append(encode(image, "JPEG", quality=quality, keep_rgb=True, **{option: True}))
    for data, scale in itertools.product(kinds, (1, 2, 4, 8)):
        fast, reference = by_both(data, scale)
        assert fast is not None
        np.testing.assert_array_equal(fast, reference)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0, "optimize": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_data_that_end_early_are_refused_or_left_to_pillow(options: dict[str, Any], end: bytes) -> None:
    data = encode(LESION.resize((120, 96)), "JPEG", **options)
    with Image.open(io.BytesIO(data)) as image:
        for size in range(data.index(b"\xff\xda") + 14, len(data) - 2, 7):
            if end:
                with pytest.raises(ImageError, match="damaged or cut short"):
                    turbo_pixels(image, data[:size] + end)
            else:
                assert turbo_pixels(image, data[:size]) is None


@pytest.mark.parametrize("before", [b"", b"\xff\x01", b"\xff\xff"])
@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_endless_scans_is_refused(progressive: bool, before: bytes) -> None:
    data = encode(LESION, "JPEG", progressive=progressive)
    last = data.rindex(b"\xff\xda")
    begun, scan, end = data[:last], data[last:-2], data[-2:]
    with pytest.raises(ImageError, match="a JPEG of more than 100 scans") as caught:
        decode_image(begun + scan + 100 * (before + scan) + end, SMALL)
    assert caught.value.reason == "unsupported"
    # What follows the picture is none of its scans: a film, in files of phones.
    assert decode_image(data + 200 * b"\xff\xda\0\2", SMALL).format == "JPEG"


def test_padding_of_a_broken_file_is_passed_over() -> None:
    """For hours, were each of its bytes looked at as the beginning of a marker that all others may fill."""
    data = encode(LESION, "JPEG", progressive=True)
    with pytest.raises(ImageError):
        decode_image(data[: len(data) // 2] + b"\xff" * 1_000_000, SMALL)


def test_what_pillow_reads_otherwise_is_left_to_it() -> None:
    assert by_both(encode(LESION.convert("CMYK"), "JPEG"), 1)[0] is None
    assert by_both(encode(LESION, "PNG"), 1)[0] is None
    with Image.open(io.BytesIO(encode(LESION.resize((33, 49)), "JPEG"))) as smaller:
        assert turbo_pixels(smaller, encode(LESION, "JPEG")) is None


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_damage_is_judged_alike_whichever_decoder_there_is_unless_one_fills_it(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome(data: bytes) -> bytes | str:
        try:
            return decode_image(data, SMALL).pixels.tobytes()
        except ImageError as error:
            return error.reason

    rng = np.random.default_rng(0)
    files = []
    for _ in range(150):
        damaged = bytearray(encode(LESION.resize((120, 96)), "JPEG", **options))
        damaged[rng.integers(2, rng.choice([200, 700, len(damaged)]))] = rng.integers(256)
        files.append(bytes(damaged))
    found = [outcome(data) for data in files]
    monkeypatch.setattr(decode, "turbo_pixels", lambda image, data: None)
    by_pillow = [outcome(data) for data in files]
    # Pillow says nothing of what is made up.
    differ = [(one, other) for one, other in zip(found, by_pillow, strict=True) if one != other]
    assert {one for one, _ in differ} == {"truncated"}
    assert 0 < len(differ) < 100
    assert 10 < sum(isinstance(o, str) for o in found) < 140


@pytest.mark.parametrize("options", [{}, {"subsampling": 0, "optimize": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_jpeg_whose_data_end_before_the_picture(options: dict[str, Any], damage: str, scaled: bool) -> None:
    # With its end marker in place, Pillow decodes it without a word, and what is missing is grey.
    data = encode(LESION, "JPEG", quality=90, **options)
    rng = np.random.default_rng(0)
    for share in (0.3, 0.6, 0.85):
        kept = data[: int(len(data) * share)]
        # A marker in the midst of the data ends them for the decoder.
        rest = b"" if damage == "cut" else b"\xff\xe0" + rng.bytes(len(data) - len(kept) - 4)
        with pytest.raises(ImageError, match="damaged or cut short"):
            decode_image(kept + rest + b"\xff\xd9", InputSpec(height=32, width=48, scaled_decoding=scaled))


@pytest.mark.parametrize("options", [{}, {"subsampling": 0, "optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(240, 600), (600, 240), (64, 71), (96, 92), (400, 280)])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_picture_that_is_truly_grey_below_is_whole(
    options: dict[str, Any], mode: str, size: tuple[int, int], scaled: bool
) -> None:
    grey = (128, 128, 128)
    for image in (ImageOps.pad(LESION, size, color=grey, centering=(0, 0)), Image.new("RGB", size, grey)):
        data = encode(image.convert(mode), "JPEG", **options)
        decoded = decode_image(data, InputSpec(height=32, width=48, scaled_decoding=scaled))
        assert (decoded.width, decoded.height) == size
