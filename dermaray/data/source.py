"""One image as its source describes it, before anything is known of its bytes."""

import stat
from dataclasses import dataclass
from pathlib import Path, PurePath

from dermaray.data.storage import shown
from dermaray.images.dicom import is_dicom

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".dcm": "DICOM",
}
"""What an image's suffix promises: one of `dermaray.images.decode.FORMATS`, `HEIC` or `DICOM`."""

IMAGE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)


@dataclass(frozen=True)
class SourceImage:
    """One image as its source describes it.

    Attributes:
        image_id: Unique within the source.
        uri: The file: an absolute local path, or the URI of an object. None where the source lists the image and has
            no file for it.
        label: As the source spells it; None where it gives none.
        lesion_id: The lesion that it shows, where the source says so.
        patient_id: The patient, where the source says so.
        official_split: `train`, `val` or `test`, where the source has splits.
        age: Years, or None.
        sex: As the source spells it, or None.
        site: Body site as the source spells it, or None.
    """

    image_id: str
    uri: str | None
    label: str | None
    lesion_id: str | None = None
    patient_id: str | None = None
    official_split: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None


def is_image_name(path: PurePath) -> bool:
    """Tell whether a file's name is that of an image; hidden files are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def stem_of(path: PurePath) -> str:
    """Return a file's name without its suffix, which what follows the last dot is not where it is a number."""
    return path.name if path.suffix[1:].isdecimal() else path.stem


def is_image_file(path: Path) -> bool:
    """Tell whether a local file is an image: by its name, or where that tells nothing as DICOM's begin.

    Archives of hospitals name files `IM000001`, or by a number with dots.
    """
    if is_image_name(path):
        return True
    if path.name.startswith(".") or path.name == "DICOMDIR" or stem_of(path) != path.name:
        return False
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def kind_of(path: PurePath) -> str:
    """Return what a file that is no image is counted under: its suffix, or its name where it has none."""
    return shown(path.suffix.lower() or path.name)
