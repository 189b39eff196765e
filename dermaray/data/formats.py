"""From a source of images, as people have them, to one list: class folders, and HAM10000 with its own CSV."""

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dermaray.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"})

_SPLIT_OF_FOLDER = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
_UNKNOWN = frozenset({"", "unknown", "na", "nan"})


@dataclass(frozen=True)
class SourceImage:
    """One image as its source describes it.

    Attributes:
        image_id: Unique within the source.
        path: The file.
        label: As the source spells it.
        lesion_id: The lesion that it shows, where the source says so.
        official_split: The split that the source puts it in, where it has splits.
        age: Years, or None.
        sex: As the source spells it, or None.
        site: Body site as the source spells it, or None.
    """

    image_id: str
    path: Path
    label: str
    lesion_id: str | None = None
    official_split: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None


def read_source(source: Path) -> list[SourceImage]:
    """List the labelled images of a source, sorted by id.

    Args:
        source: A folder of class folders (one level deeper under `Train` and `Test`, where it has those), or a folder
            with a CSV that has the columns `image_id` and `dx` (HAM10000) and the images anywhere below it.

    Raises:
        DataError: The folder is missing or of neither kind, a class folder holds no image, or HAM10000's CSV and the
            images do not match one to one.
    """
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise DataError(f"{source} {what}. A folder of class folders, or one with HAM10000's CSV, was expected")
    table = _find_ham10000_csv(source)
    images = list(_read_ham10000(table, source) if table else _read_class_folders(source))
    for image in images:
        _check_name(image.path)
    return sorted(_with_unique_ids(images, source), key=lambda image: image.image_id)


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise DataError(f"{shown}: the name is not valid UTF-8, and a manifest is. Rename it") from None


def is_image_name(path: Path) -> bool:
    """Tell whether a file's name is that of an image; hidden files are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _read_class_folders(source: Path) -> Iterator[SourceImage]:
    split_folders = {
        d: _SPLIT_OF_FOLDER[d.name.lower()] for d in _folders(source) if d.name.lower() in _SPLIT_OF_FOLDER
    }
    if split_folders and len(split_folders) < len(_folders(source)):
        names = ", ".join(d.name for d in _folders(source))
        raise DataError(f"{source} mixes split folders and class folders: {names}. Have one kind or the other")
    for parent, split in split_folders.items() or {source: None}.items():
        class_folders = _folders(parent)
        if not class_folders:
            raise DataError(f"{parent} holds no folder. One folder per class was expected, with the images in it")
        for folder in class_folders:
            paths = sorted(path for path in folder.rglob("*") if path.is_file() and is_image_name(path))
            if not paths:
                raise DataError(f"class folder {folder} holds no image. Put images in it or remove it")
            for path in paths:
                yield SourceImage(path.stem, path, folder.name, official_split=split)


def _folders(parent: Path) -> list[Path]:
    return sorted(d for d in parent.iterdir() if d.is_dir() and not d.name.startswith("."))


def _find_ham10000_csv(source: Path) -> Path | None:
    for path in sorted(source.glob("*.csv")):
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            if {"image_id", "dx"} <= set(next(csv.reader(file), [])):
                return path
    return None


def _read_ham10000(table: Path, source: Path) -> Iterator[SourceImage]:
    files = _files_by_stem(source)
    for row in _csv_rows(table):
        image_id = row["image_id"]
        if image_id not in files:
            raise DataError(
                f"{table} lists {image_id}, and no such image is below {source}. Add it, or take its row out of the CSV"
            )
        known = {key: value for key, value in row.items() if value and value.lower() not in _UNKNOWN}
        yield SourceImage(
            image_id,
            files.pop(image_id),
            row["dx"],
            lesion_id=known.get("lesion_id"),
            age=_age(known["age"], table) if "age" in known else None,
            sex=known.get("sex"),
            site=known.get("localization"),
        )
    if files:
        raise DataError(
            f"{len(files)} images below {source} have no row in {table}, {files[min(files)]} for one. Remove them"
        )


def _files_by_stem(source: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(source.rglob("*")):
        if is_image_name(path) and files.setdefault(path.stem, path) != path:
            raise DataError(f"{path} and {files[path.stem]} have one name. A row of the CSV could mean either")
    return files


def _csv_rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a CSV in UTF-8: {error}") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DataError(f"{table}, line {number}: not as many values as the header has columns")
    return rows


def _age(text: str, table: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{table}: age is a number of years. Received: {text!r}") from None


def _with_unique_ids(images: list[SourceImage], source: Path) -> Iterator[SourceImage]:
    """Give images whose names repeat (one in Train, one in Test, say) the path within the source as their id."""
    times = Counter(image.image_id for image in images)
    for image in images:
        if times[image.image_id] == 1:
            yield image
        else:
            yield replace(image, image_id=image.path.relative_to(source).as_posix())
