"""DICOM files: the picture in them, however it is stored."""

import io
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from dermaray.errors import ImageError
from dermaray.images.decode import decode_frame, decode_image
from dermaray.images.spec import InputSpec
from tests.odd_files import dicom, encode, picture

SPEC = InputSpec(height=32, width=32)


def changed(**values: Any) -> Dataset:
    dataset = dcmread(io.BytesIO(dicom(picture(0))))
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, SPEC)
    return caught.value.reason


def test_pixels_are_those_of_the_picture() -> None:
    found = decode_frame(dicom(picture(0)), None)
    assert (found.height, found.width, found.format) == (*picture(0).size[::-1], "DICOM")
    assert np.array_equal(found.pixels, np.asarray(picture(0)))
    assert decode_image(dicom(picture(0)), SPEC).pixels.shape == SPEC.shape


@pytest.mark.parametrize(
    ("syntax", "form"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000, "JPEG2000"), (JPEG2000Lossless, "JPEG2000")]
)
def test_a_file_within_is_decoded_as_one_outside(syntax: str, form: str) -> None:
    file = encode(picture(0), form)
    dataset = changed(PixelData=encapsulate([file, encode(picture(1), form)]), NumberOfFrames=2)
    dataset.file_meta.TransferSyntaxUID = syntax
    found = decode_image(written(dataset), SPEC)
    assert found.format == "DICOM"
    if form == "JPEG":
        assert np.array_equal(found.pixels, decode_image(file, SPEC).pixels)
    assert np.abs(found.pixels.astype(int) - decode_image(encode(picture(0), "PNG"), SPEC).pixels).mean() < 8


@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL"])
def test_colours_that_only_dicom_tells_of_are_believed(kind: str) -> None:
    truth = picture(0)
    stored = Image.frombytes("YCbCr", truth.size, truth.tobytes()) if kind == "RGB" else truth
    file = encode(stored, "JPEG")
    # Without the first segment, JFIF's, by which it would be YCbCr whatever DICOM says.
    assert file[2:4] == b"\xff\xe0"
    file = file[:2] + file[4 + int.from_bytes(file[4:6], "big") :]
    dataset = changed(PixelData=encapsulate([file]), PhotometricInterpretation=kind)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    found = decode_frame(written(dataset), None).pixels
    assert np.abs(found.astype(int) - np.asarray(truth)).mean() < 8


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("syntax", "form"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "JPEG2000")])
def test_a_negative_within_is_shown_as_a_positive(syntax: str, form: str, kind: str) -> None:
    grey = picture(0).convert("L")
    stored = ImageOps.invert(grey) if kind == "MONOCHROME1" else grey
    data = encapsulate([encode(stored, form)])
    dataset = changed(PhotometricInterpretation=kind, SamplesPerPixel=1, PixelData=data)
    dataset.file_meta.TransferSyntaxUID = syntax
    found = decode_frame(written(dataset), None)
    assert found.format == "DICOM"
    assert np.abs(found.pixels.astype(int) - np.asarray(grey.convert("RGB"))).mean() < 3
    # Bars that pad it are no part of it.
    padded = decode_image(written(dataset), InputSpec(height=32, width=32, resize="pad")).pixels
    assert padded[0].max() == 0
    assert padded[16].min() > 0


def indexed(truth: Image.Image, bits: int, *, words: bool) -> Dataset:
    """Return a picture of indices, with a palette of so many bits, of which each level may have a word."""
    palette = np.asarray(truth.getpalette(), "<u2" if words else np.uint8).reshape(-1, 3)
    dataset = changed(PhotometricInterpretation="PALETTE COLOR", SamplesPerPixel=1, PixelData=truth.tobytes())
    for name, values in zip(("Red", "Green", "Blue"), palette.T, strict=True):
        dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [len(values), 0, bits])
        setattr(dataset, f"{name}PaletteColorLookupTableData", (values * (257 if bits == 16 else 1)).tobytes())
    return dataset


@pytest.mark.parametrize("kind", ["PALETTE COLOR", "YBR_FULL", "twelve bits"])
def test_of_jpeg_2000_what_dicom_alone_says_counts(kind: str) -> None:
    truth = picture(0)
    dataset = changed()
    if kind == "PALETTE COLOR":
        few = truth.quantize(200)
        dataset = indexed(few, 16, words=True)
        stored, truth = Image.fromarray(np.asarray(few)), few.convert("RGB")
    elif kind == "YBR_FULL":
        stored = Image.frombytes("RGB", truth.size, truth.convert("YCbCr").tobytes())
    else:
        truth = truth.convert("L").convert("RGB")
        stored = Image.fromarray(np.asarray(truth)[..., 0].astype(np.uint16) << 4)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PhotometricInterpretation = "MONOCHROME2" if kind == "twelve bits" else kind
    dataset.SamplesPerPixel = 3 if kind == "YBR_FULL" else 1
    # Neither colours nor levels changed by the encoder.
    dataset.PixelData = encapsulate([encode(stored, "JPEG2000", irreversible=False, mct=0)])
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    found = decode_frame(written(dataset), None).pixels
    assert np.abs(found.astype(int) - np.asarray(truth)).mean() < 3


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "words"), [(16, True), (8, True), (8, False)])
def test_palettes_of_bytes_and_words(bits: int, words: bool, signed: bool) -> None:
    truth = picture(0).quantize(100)
    dataset = indexed(truth, bits, words=words)
    dataset.PixelRepresentation = int(signed)
    assert np.array_equal(decode_frame(written(dataset), None).pixels, np.asarray(truth.convert("RGB")))


def test_a_palettes_transparency_is_dropped() -> None:
    truth = picture(0).quantize(100)
    dataset = indexed(truth, 8, words=False)
    dataset.AlphaPaletteColorLookupTableData = bytes(100)
    assert np.array_equal(decode_frame(written(dataset), None).pixels, np.asarray(truth.convert("RGB")))


def test_three_indices_a_pixel_are_refused() -> None:
    dataset = indexed(picture(0).quantize(100), 8, words=False)
    dataset.SamplesPerPixel, dataset.PixelData = 3, dataset.PixelData * 3
    assert reason_of(written(dataset)) == "unsupported"


def test_run_lengths_are_read() -> None:
    dataset = changed()
    dataset.compress(RLELossless)
    assert np.array_equal(decode_frame(written(dataset), None).pixels, np.asarray(picture(0)))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_grey_of_twelve_bits_keeps_its_upper_eight(kind: str) -> None:
    grey = np.asarray(picture(0).convert("L"))
    deep = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "SamplesPerPixel": 1}
    dataset = changed(PhotometricInterpretation=kind, PixelData=(grey.astype("<u2") << 4).tobytes(), **deep)
    shown = decode_frame(written(dataset), None).pixels
    assert np.array_equal(shown[..., 0], grey if kind == "MONOCHROME2" else 255 - grey)
    assert np.array_equal(shown[..., 0], shown[..., 2])


@pytest.mark.parametrize("bits", [1, 4, 5, 6])
def test_grey_of_fewer_bits_reaches_white(bits: int) -> None:
    grey = np.asarray(picture(0).convert("L")) >> (8 - bits)
    grey[0, :2] = 0, 2**bits - 1
    few = {"BitsAllocated": 8, "BitsStored": bits, "HighBit": bits - 1, "SamplesPerPixel": 1}
    dataset = changed(PhotometricInterpretation="MONOCHROME2", PixelData=grey.tobytes(), **few)
    shown = decode_frame(written(dataset), None).pixels[..., 0]
    assert np.array_equal(shown, grey.astype(int) * 255 // (2**bits - 1))
    assert shown[0, :2].tolist() == [0, 255]


def test_levels_that_lie_higher_are_refused() -> None:
    with pytest.raises(ImageError, match="do not begin with their lowest bit"):
        decode_frame(written(changed(BitsAllocated=16, BitsStored=12, HighBit=15, SamplesPerPixel=1)), None)


def test_what_cannot_be_read_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason_of(dicom(picture(0))[:5000]) == "truncated"
    assert reason_of(dicom(picture(0), pixels=False)) == "unsupported"
    assert reason_of(written(changed(Rows=60_000, Columns=60_000))) == "too_many_pixels"
    other = changed(PixelData=encapsulate([b"\0" * 100]))
    other.file_meta.TransferSyntaxUID = JPEGLSLossless
    assert reason_of(written(other)) == "unsupported"
    whole = dicom(picture(0))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"pip install 'dermaray\[dicom\]'"):
        decode_image(whole, SPEC)
