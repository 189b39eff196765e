"""Files as they turn up in collections, under names of images: a hundred and more, of which most are none."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dermaray.data.synthetic import render_lesion

USABLE = ""


@dataclass(frozen=True)
class Odd:
    """A file, and what is to become of it.

    Attributes:
        kind: What is odd about it.
        suffix: Of its name.
        data: Its bytes.
        reason: The `ImageError.reason` that it is refused for, or `USABLE`.
        remark: The finding that it is reported under although it is kept, or empty.
    """

    kind: str
    suffix: str
    data: bytes
    reason: str = USABLE
    remark: str = ""


def picture(seed: int, size: tuple[int, int] = (120, 160)) -> Image.Image:
    return Image.fromarray(render_lesion("nevus", 5000 + seed, size))


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(seed: int, **options: Any) -> bytes:
    return encode(picture(seed), "JPEG", quality=90, **options)


def patched(data: bytes, position: int, new: bytes) -> bytes:
    return data[:position] + new + data[position + len(new) :]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*extra: bytes, size: tuple[int, int] = (48, 32)) -> bytes:
    """Return a PNG of the header's size, with further chunks before the pixels, which are those of 48x32."""
    pixels = zlib.compress(b"".join(b"\0" + bytes(144) for _ in range(32)))
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)), *extra, chunk(b"IDAT", pixels)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def bmp(height: int) -> bytes:
    """Return a BMP of 160 columns that states a height; a negative one means that the rows go downward."""
    data = encode(picture(70), "BMP")
    return patched(data, 22, struct.pack("<i", height))


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", following)


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("ISIC_0000001.jpg", jpeg(0))
    return buffer.getvalue()


def no_images() -> Iterator[Odd]:
    for suffix in (".jpg", ".png", ".tif"):
        yield Odd("nothing", suffix, b"", "empty")
    for byte in (b"\xff", b"\0", b"B"):
        yield Odd("one byte", ".jpg", byte, "not_an_image")
    for kind, data in {
        "a web page": b"<!doctype html><title>404 Not Found</title>",
        "json": b'{"error": "rate limit exceeded"}',
        "text": "Melanom, 3 mm, linker Arm - Größe geschätzt\n".encode() * 40,
        "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n",
        "a zip": archive(),
        "a film": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(200),
        "a drawing": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "a program's page": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "half a dicom's mark": bytes(128) + b"DIC\0\x02\0\0\0UL\x04\0\x9c\0\0\0",
        "an avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200),
        "a jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
        "a photoshop file": b"8BPS\0\x01" + bytes(200),
        "an icon": encode(picture(3).resize((16, 16)), "ICO"),
        "a netpbm": encode(picture(4), "PPM"),
        "noughts": bytes(4096),
        "noise": np.random.default_rng(1).bytes(4096),
    }.items():
        yield Odd(kind, ".jpg", data, "not_an_image")


def dicoms() -> Iterator[Odd]:
    yield Odd("a dicom cut short", ".dcm", dicom(picture(102))[:9000], "truncated")
    yield Odd("a dicom without a picture", ".dcm", dicom(picture(2), pixels=False), "unsupported")
    yield Odd("a dicom", ".dcm", dicom(picture(101)))


def heics() -> Iterator[Odd]:
    whole = heic(picture(103))
    yield Odd("a heic", ".heic", whole)
    yield Odd("a heic by another name", ".jpg", heic(picture(104)), remark="wrong_type")
    yield Odd("a heic cut short", ".heic", whole[: len(whole) // 2], "truncated")
    yield Odd("a heic that is a beginning", ".heif", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "truncated")


def heic(image: Image.Image, **options: Any) -> bytes:
    """Return a picture as a HEIC file."""
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, **options)
    return buffer.getvalue()


def dicom(image: Image.Image, *, pixels: bool = True) -> bytes:
    """Return a picture as an uncompressed DICOM file."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns = image.height, image.width
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    if pixels:
        dataset.PixelData = np.asarray(image).tobytes()
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def damaged_jpegs() -> Iterator[Odd]:
    data = jpeg(1)
    for percent in (10, 50, 90, 99):
        yield Odd("a jpeg cut short", ".jpg", data[: len(data) * percent // 100], "truncated")
    yield Odd("a jpeg without its end", ".jpg", jpeg(2)[:-2], "truncated")
    for percent in (40, 70):
        yield Odd("a jpeg cut short and ended", ".jpg", data[: len(data) * percent // 100] + b"\xff\xd9", "truncated")
    yield Odd("a jpeg without its beginning", ".jpg", data[2:], "not_an_image")
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    yield Odd("a jpeg of an unknown process", ".jpg", patched(data, frame, b"\xff\xc5"), "truncated")
    yield Odd("a jpeg without tables", ".jpg", data[:20] + data[frame:], "truncated")
    yield Odd("a jpeg whose header is noughts", ".jpg", patched(data, 20, bytes(200)), "truncated")
    for seed in range(3):
        start = scan + 1000
        noise = np.random.default_rng(seed).bytes(len(data) - start - 2)
        yield Odd("a jpeg with noise for data", ".jpg", patched(data, start, noise), "truncated")
    for side, reason in ((65_000, "too_many_pixels"), (20_000, "too_many_pixels"), (4_000, "truncated")):
        stated = patched(data, frame + 5, struct.pack(">HH", side, side))
        yield Odd("a jpeg that states more than it holds", ".jpg", stated, reason)


def damaged_pngs() -> Iterator[Odd]:
    data = encode(picture(10), "PNG")
    for percent in (10, 60, 95):
        yield Odd("a png cut short", ".png", data[: len(data) * percent // 100], "truncated")
    yield Odd("a png with a wrong checksum", ".png", patched(data, 29, b"\0\0\0\0"), "truncated")
    yield Odd("a png with damaged pixels", ".png", patched(data, len(data) // 2, bytes(64)), "truncated")
    for size, reason in {
        (100_000, 100_000): "too_many_pixels",
        (2**31 - 1, 2**31 - 1): "too_many_pixels",
        (0, 32): "truncated",
    }.items():
        yield Odd("a png that states another size", ".png", png(size=size), reason)
    bomb = zlib.compress(bytes(100_000_000), 9)
    yield Odd("a bomb in a text", ".png", png(chunk(b"zTXt", b"Comment\0\0" + bomb)), "truncated")
    yield Odd("a bomb in a text", ".png", png(chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb)), "truncated")
    rows = zlib.compress(bytes(20_001 // 8 * 20_000), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0))
    wide = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    yield Odd("a bomb in the pixels", ".png", wide, "too_many_pixels")
    yield Odd("a bomb in a profile", ".png", png(chunk(b"iCCP", b"Profile\0\0" + bomb)), "truncated")


def damaged_others() -> Iterator[Odd]:
    frames = [picture(20 + i) for i in range(3)]
    for form, suffix in (("GIF", ".gif"), ("BMP", ".bmp"), ("WEBP", ".webp"), ("TIFF", ".tif")):
        data = encode(frames[0], form)
        for percent in (30, 80):
            yield Odd(f"a {form} cut short", suffix, data[: len(data) * percent // 100], "truncated")
    yield Odd("a webp that is a header", ".webp", b"RIFF\xff\xff\xff\x7fWEBPVP8 ", "truncated")
    yield Odd("a bmp that states another height", ".bmp", bmp(2**31 - 1), "too_many_pixels")
    yield Odd("a bmp that states another height", ".bmp", bmp(5000), "truncated")
    yield Odd("a bmp that states another height", ".bmp", bmp(-5000), "truncated")
    yield Odd("a tiff without pixels", ".tif", tiff(), "truncated")
    yield Odd("a tiff that refers to itself", ".tif", tiff((0x8769, 4, 1, 8), following=8), "truncated")
    size = (256, 4, 1, 64), (257, 4, 1, 64)
    yield Odd("a tiff of absurd tags", ".tif", tiff(*size, (258, 3, 2**32 - 1, 2**32 - 1)), "truncated")
    yield Odd("a tiff of absurd tags", ".tif", tiff(*size, (277, 3, 1, 60_000), (273, 4, 1, 2**31)), "truncated")
    yield Odd("a tiff of absurd tags", ".tif", tiff((256, 4, 1, 2**31), (257, 4, 1, 2**31)), "truncated")


def unusual_pictures() -> Iterator[Odd]:
    grey = {"remark": "unlike_dermoscopy"}
    yield Odd("a palette", ".png", encode(picture(30).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"))
    deep = np.asarray(picture(31).convert("L")).astype(np.uint16) * 257
    yield Odd("sixteen bits", ".png", encode(Image.fromarray(deep), "PNG"), **grey)
    yield Odd("sixteen bits", ".tif", encode(Image.fromarray(deep[::-1]), "TIFF"), **grey)
    see_through = picture(32)
    see_through.putalpha(100)
    yield Odd("transparency", ".png", encode(see_through, "PNG"))
    yield Odd("one bit", ".png", encode(picture(33).convert("1"), "PNG"), **grey)
    yield Odd("four inks", ".jpg", encode(picture(34).convert("CMYK"), "JPEG"))
    yield Odd("a grey jpeg", ".jpg", encode(picture(35).convert("L"), "JPEG"), **grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield Odd("a lying jpeg", ".jpg", jpeg(36, exif=exif))
    yield Odd("damaged metadata", ".webp", encode(picture(37), "WEBP", exif=b"Exif\0\0garbage garbage"))
    yield Odd("a progressive jpeg", ".jpeg", jpeg(38, progressive=True))
    frames = [picture(40 + i) for i in range(3)]
    yield Odd("an animation", ".gif", encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    yield Odd("pages", ".tiff", encode(frames[1], "TIFF", save_all=True, append_images=frames[:1]))
    yield Odd("a jpeg of two pictures", ".jpg", encode(frames[2], "MPO", save_all=True, append_images=frames[:1]))
    yield Odd("a bmp from top to bottom", ".bmp", bmp(-120))
    yield Odd("a png without its end", ".png", encode(picture(43), "PNG")[:-12])
    yield Odd("an upper-case suffix", ".JPG", jpeg(44))
    yield Odd("a jpeg with something behind it", ".jpg", jpeg(60) + b"PK\x03\x04" + bytes(5000))
    yield Odd("a jpeg with much before its pixels", ".jpg", jpeg(61, comment=b"x" * 60_000))
    yield Odd("a jpeg in blocks", ".jpg", jpeg(62, restart_marker_blocks=1))
    yield Odd("an animated webp", ".webp", encode(picture(63), "WEBP", save_all=True, append_images=[picture(64)]))
    yield Odd("a lossless webp", ".webp", encode(picture(65), "WEBP", lossless=True))
    for seed, compression in enumerate(("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")):
        yield Odd(f"a tiff by {compression}", ".tif", encode(picture(66 + seed), "TIFF", compression=compression))
    many = [picture(70).resize((16, 12)).rotate(angle) for angle in range(300)]
    yield Odd(
        "an animation of 300 frames", ".gif", encode(many[0], "GIF", save_all=True, append_images=many[1:]), **grey
    )
    for seed, (form, suffix) in enumerate([("PNG", ".jpg"), ("JPEG", ".png"), ("GIF", ".tif"), ("WEBP", ".jpeg")]):
        yield Odd("a false suffix", suffix, encode(picture(45 + seed), form), remark="wrong_type")
    for size in ((1, 1), (5000, 1), (1, 5000), (900, 70), (40, 40)):
        small = picture(50).resize(size)
        yield Odd(f"{size[0]} by {size[1]}", ".png", encode(small, "PNG"), **grey)
    for colour in ("black", "white", (128, 128, 128)):
        yield Odd("one colour", ".jpg", encode(Image.new("RGB", (160, 120), colour), "JPEG"), **grey)


ODD = [*no_images(), *dicoms(), *heics(), *damaged_jpegs(), *damaged_pngs(), *damaged_others(), *unusual_pictures()]
NAMES = {
    "spaces": "a  photo (1) .jpg",
    "unicode": "Muttermal-größer-日本-🔬.jpg",
    "a line break": "two\nlines\tand a tab.jpg",
    "quotes and commas": """'a', "b"; c.jpg""",
    "marks of a uri": "100%25 #1?&=+::.jpg",
    "a long name": "x" * 251 + ".jpg",
}


def write_special_files(folder: Path) -> dict[Path, Odd]:
    """Write what is no plain file, under names of images."""
    (folder / "folder.jpg").mkdir()
    inside, target, locked = folder / "folder.jpg" / "inside.jpg", folder / "target.jpg", folder / "locked.jpg"
    for seed, path in enumerate((inside, target, locked)):
        path.write_bytes(jpeg(90 + seed))
    (folder / "link.jpg").symlink_to(target)
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    locked.chmod(0)
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(70 * 1024 * 1024)
    return {
        inside: Odd("in a folder", ".jpg", b""),
        target: Odd("the end of a link", ".jpg", b""),
        folder / "dangling.jpg": Odd("a dangling link", ".jpg", b"", "unreadable"),
        folder / "pipe.jpg": Odd("a pipe", ".jpg", b"", "unreadable"),
        folder / "huge.jpg": Odd("a huge file", ".jpg", b"", "too_large"),
        # The superuser may read it all the same.
        locked: Odd("no permission", ".jpg", b"", USABLE if os.access(locked, os.R_OK) else "unreadable"),
    }
