"""CSVs that tell of images: ground truth and metadata of HAM10000, the ISIC challenges and the ISIC archive.

A file is known by its columns, not by its name. What each year's look like:

| origin | columns |
| --- | --- |
| HAM10000 | `image_id`, `dx`; `lesion_id`, `age`, `sex`, `localization` |
| ISIC 2016 | no header: an id, and `benign` or `malignant` (training), 0.0 or 1.0 (test) |
| ISIC 2017 | `image_id`, `melanoma`, `seborrheic_keratosis`: neither is a nevus; `age_approximate`, `sex` |
| ISIC 2018, 2019 | `image` and one column per class, `UNK` for none of them; `lesion_id`, `age_approx`, ... |
| ISIC 2020 | `image_name`, `benign_malignant`, `target`; `patient_id`, `lesion_id`, `age_approx`, ... |
| ISIC archive | `isic_id`, `diagnosis_1` to `diagnosis_5` (older: `diagnosis`, `benign_malignant`), ... |

Ground truth and metadata may be one file or several: `merge` joins them by the image's id.
"""

import codecs
import csv
import io
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from dermaray.data.groups import group_ids
from dermaray.data.source import IMAGE_SUFFIXES, SourceImage
from dermaray.data.storage import read_bytes
from dermaray.errors import DataError
from dermaray.labels import GRADES, agree, diagnosis_code

KNOWN_FORMS = "HAM10000's, the ISIC challenges' of 2016 to 2020, or the metadata.csv of the ISIC archive"

DOWNSAMPLED = "_downsampled"
"""What ISIC 2019 adds to the names of some images."""

Row = dict[str, str]
_LabelOf = Callable[[Row, str], str | None]

_HEAD_BYTES = 64 * 1024
_UNKNOWN = frozenset({"", "-", "unknown", "na", "n/a", "#n/a", "<na>", "nan", "none", "null"})
_ID_COLUMNS = ("isic_id", "image_name", "image_id", "image")
_COLUMNS = {
    "lesion_id": ("lesion_id",),
    "patient_id": ("patient_id",),
    "age": ("age", "age_approx", "age_approximate"),
    "sex": ("sex",),
    "site": ("localization", "anatom_site_general", "anatom_site_general_challenge"),
}
_CLASS_COLUMNS = ("MEL", "NV", "BCC", "AKIEC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
# From the most specific to the least.
_DIAGNOSIS_COLUMNS = (*(f"diagnosis_{n}" for n in (5, 4, 3, 2)), "diagnosis", "diagnosis_1", "benign_malignant")
_MALIGNANT = {"benign": False, "0": False, "0.0": False, "malignant": True, "1": True, "1.0": True}
_COLUMNS_2016 = ("image", "malignant")
"""Of files without a header: it is told by identity, since one may have this very header."""
_NAMES = frozenset(
    {*_ID_COLUMNS, *(name for names in _COLUMNS.values() for name in names), *_DIAGNOSIS_COLUMNS}
    | {"dx", "target", "melanoma", "seborrheic_keratosis"}
)
"""Columns that are known whatever their capitals; those of classes are known by them."""


@dataclass(frozen=True)
class Table:
    """A CSV that tells of images.

    Attributes:
        place: Where it lies.
        labelled: Whether files of its kind give labels; otherwise they give lesions, ages and the like alone.
        rows: What it says of each image, by its id; without `uri`.
    """

    place: str
    labelled: bool
    rows: dict[str, SourceImage]


def read_table(place: str) -> Table | None:
    """Read a CSV, or return None where its columns are none that are known.

    Raises:
        DataError: It is no CSV in UTF-8, or one with other separators, a column is there twice, a line has too many or
            too few values or one that cannot be, or two lines say different things of one image.
    """
    columns = _columns(place)
    label_of = _label_reader(columns)
    known = {name for names in _COLUMNS.values() for name in names}
    id_column = next((name for name in _ID_COLUMNS if name in columns), None)
    if id_column is None or (label_of is None and not known & set(columns)):
        return None
    rows: dict[str, SourceImage] = {}
    for row, where in _rows(place, columns):
        image = _image(row, row[id_column], label_of, where)
        if rows.setdefault(image.image_id, image) != image:
            raise DataError(f"{where}: {image.image_id} is in the file twice, with different values")
    return Table(place, label_of is not None, rows)


def merge(tables: Sequence[Table], files: Collection[str] = ()) -> dict[str, SourceImage]:
    """Join what several CSVs say of each image: the first that says something, those with labels before the others.

    An image may have `DOWNSAMPLED` in one and not in another, unless one of them has both, or both are among `files`.

    Lesions and patients that one of them names otherwise than another get one name: the CSVs may have ids of their own,
    and what any of them puts together stays together.

    Raises:
        DataError: Two of them give labels to one image that cannot both be right.
    """
    merged: dict[str, SourceImage] = {}
    labelled_by: dict[str, str] = {}
    tables = _with_the_same_ids(sorted(tables, key=lambda table: not table.labelled), files)
    for table in tables:
        for image_id, image in table.rows.items():
            known = merged.get(image_id)
            merged[image_id] = image if known is None else _joined(known, image, labelled_by.get(image_id), table.place)
            if image.label is not None:
                labelled_by.setdefault(image_id, table.place)
    for field in ("lesion_id", "patient_id") if len(tables) > 1 else ():
        _name_once(field, merged, tables)
    return merged


def _with_the_same_ids(tables: Sequence[Table], files: Collection[str]) -> list[Table]:
    """Return CSVs with the ids that those before them have for an image, where `DOWNSAMPLED` alone tells them apart."""
    sets: list[Collection[str]] = [table.rows for table in tables]
    two = {image_id for names in (*sets, files) for image_id in names if f"{image_id}{DOWNSAMPLED}" in names}
    known: set[str] = set()
    renamed = []
    for table in tables:
        rows = {}
        for image_id, image in table.rows.items():
            names = () if image_id.removesuffix(DOWNSAMPLED) in two else ids_of(image_id)
            name = next((other for other in names if other in known), image_id)
            rows[name] = replace(image, image_id=name)
        known |= rows.keys()
        renamed.append(replace(table, rows=rows))
    return renamed


def ids_of(name: str) -> tuple[str, ...]:
    """Return the ids that CSVs may know an image by: its own first, and with and without `DOWNSAMPLED`."""
    return name, name.removesuffix(DOWNSAMPLED), f"{name}{DOWNSAMPLED}"


def find_record(name: str, records: Mapping[str, SourceImage]) -> SourceImage | None:
    """Return what records tell of an image under any of `ids_of` its name, or None."""
    return next((records[image_id] for image_id in ids_of(name) if image_id in records), None)


def _name_once(field: str, merged: dict[str, SourceImage], tables: Sequence[Table]) -> None:
    """Give all images that any chain of CSVs puts into one lesion, or to one patient, the first one's id of it."""
    told = {table.place: [getattr(table.rows.get(i), field, None) for i in merged] for table in tables}
    groups = group_ids(list(merged), {**told, "merged": [getattr(image, field) for image in merged.values()]})
    names: dict[str, Any] = {}
    for (image_id, image), group in zip(list(merged.items()), groups, strict=True):
        own = getattr(image, field)
        if own is not None and own != names.setdefault(group, own):
            merged[image_id] = replace(image, **{field: names[group]})


def fill_in(image: SourceImage, known: SourceImage | None) -> SourceImage:
    """Return an image with what another record of it says where it is silent; label, file and split are its own."""
    if known is None:
        return image
    silent = [name for name in _COLUMNS if getattr(image, name) is None]
    return replace(image, **{name: getattr(known, name) for name in silent})


def _joined(known: SourceImage, image: SourceImage, known_from: str | None, place: str) -> SourceImage:
    if known.label is None:
        known = replace(known, label=image.label)
    elif image.label is not None and _contradict(known.label, image.label):
        raise DataError(
            f"{known.image_id} is {known.label} in {known_from} and {image.label} in {place}. Take away the CSV that "
            "is wrong"
        )
    return fill_in(known, image)


def _contradict(one: str, other: str) -> bool:
    verdict = agree(one, other)
    return verdict is False or (verdict is None and diagnosis_code(one) is None and diagnosis_code(other) is None)


def _columns(place: str) -> tuple[str, ...]:
    head = read_bytes(place, _HEAD_BYTES)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{place} is UTF-16. A CSV in UTF-8 was expected")
    text = head.decode("utf-8-sig", "replace")
    try:
        first = [name.strip() for name in next(filter(None, csv.reader(io.StringIO(text, newline=""))), [])]
    except csv.Error:
        return ()
    if len(first) == 2 and re.fullmatch(r"ISIC_\d+", first[0]) and first[1].lower() in _MALIGNANT:
        return _COLUMNS_2016
    names = [name.lower() if name.lower() in _NAMES else name for name in first]
    _check_header(place, names)
    return tuple(names)


def _check_header(place: str, names: Sequence[str]) -> None:
    if not set(_ID_COLUMNS) & set(names):
        for separator, said in ((";", "semicolons"), ("\t", "tabs")):
            parts = {part.strip(' "').lower() for part in separator.join(names).split(separator)}
            if parts & set(_ID_COLUMNS) and (parts - set(_ID_COLUMNS)) & (_NAMES | {"mel"}):
                raise DataError(f"{place}: values are separated by {said}. Commas were expected")
        return
    if twice := [name for name in names if name in _NAMES.union(_CLASS_COLUMNS) and names.count(name) > 1]:
        raise DataError(f"{place} has the column {twice[0]} twice. Take one of them away")


def _rows(place: str, columns: tuple[str, ...]) -> Iterator[tuple[Row, str]]:
    """Yield the rows and, for messages, the file and the line of each."""
    data = read_bytes(place)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{place}, line {line}: not a CSV in UTF-8: {error.reason}") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for number, values in enumerate(filter(None, reader)):
            if number == 0 and columns is not _COLUMNS_2016:
                continue
            where = f"{place}, line {reader.line_num}"
            if len(values) != len(columns):
                raise DataError(f"{where}: not as many values as the header has columns")
            yield {name: value.strip() for name, value in zip(columns, values, strict=True)}, where
    except csv.Error as error:
        raise DataError(f"{place}, line {reader.line_num}: not a CSV: {error}") from error


def _image(row: Row, image_id: str, label_of: _LabelOf | None, where: str) -> SourceImage:
    if not image_id:
        raise DataError(f"{where}: no image is named")
    # The name of a file, with some.
    if PurePosixPath(image_id).suffix.lower() in IMAGE_SUFFIXES:
        image_id = image_id[: image_id.rindex(".")]
    values = {field: _known(row, columns) for field, columns in _COLUMNS.items()}
    age = values.pop("age")
    label = label_of(row, where) if label_of else None
    return SourceImage(image_id, None, label, age=None if age is None else _age(age, where), **values)


def _known(row: Row, columns: Sequence[str]) -> str | None:
    return next((row[name] for name in columns if row.get(name, "").lower() not in _UNKNOWN), None)


def _age(text: str, where: str) -> float:
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    # No number is neither small nor large.
    if not 0 <= age < 150:
        raise DataError(f"{where}: age is a number of years. Received: {text!r}")
    return age


def _label_reader(columns: Sequence[str]) -> _LabelOf | None:
    """Return what reads the label from a row of these columns, or None where they hold none."""
    names = set(columns)
    forms: list[tuple[bool, _LabelOf]] = [
        ({"image_id", "dx"} <= names, lambda row, _: _known(row, ["dx"])),
        (columns is _COLUMNS_2016, lambda row, where: _grade(row, ["malignant"], "malignant", where)),
        ({"image_id", "melanoma", "seborrheic_keratosis"} <= names, _label_2017),
        ({"image", "MEL", "NV", "BCC"} <= names, _label_of_class_columns),
        # Every malignant image of that challenge is a melanoma; `diagnosis` is unknown for most of the others.
        (
            "image_name" in names and bool({"benign_malignant", "target"} & names),
            lambda row, where: _grade(row, ["benign_malignant", "target"], "melanoma", where),
        ),
        ("isic_id" in names and bool(set(_DIAGNOSIS_COLUMNS) & names), _label_of_archive),
    ]
    return next((label_of for fits, label_of in forms if fits), None)


def _label_of_archive(row: Row, _where: str) -> str | None:
    given = [row[name] for name in _DIAGNOSIS_COLUMNS if row.get(name, "").lower() not in _UNKNOWN]
    # That a diagnosis which nobody knows here is malignant does not make it the one that "malignant" stands for.
    named = [label for label in given if diagnosis_code(label) not in (None, *GRADES)]
    return named[0] if named else given[0] if given else None


def _label_2017(row: Row, where: str) -> str:
    return _only_one(row, ("melanoma", "seborrheic_keratosis"), where) or "nevus"


def _label_of_class_columns(row: Row, where: str) -> str | None:
    label = _only_one(row, [name for name in _CLASS_COLUMNS if name in row], where)
    return None if label == "UNK" else label


def _only_one(row: Row, columns: Sequence[str], where: str) -> str | None:
    for name in columns:
        if row[name] not in ("0", "1", "0.0", "1.0"):
            raise DataError(f"{where}: {name} is 0 or 1. Received: {row[name]!r}")
    ones = [name for name in columns if float(row[name]) == 1]
    if len(ones) > 1:
        raise DataError(f"{where}: an image is of one class. Received: {' and '.join(ones)}")
    return ones[0] if ones else None


def _grade(row: Row, columns: Sequence[str], malignant: str, where: str) -> str | None:
    given = {name: row[name].lower() for name in columns if row.get(name, "").lower() not in _UNKNOWN}
    for name, value in given.items():
        if value not in _MALIGNANT:
            raise DataError(f"{where}: {name} is benign or malignant, 0 or 1. Received: {value!r}")
    grades = {_MALIGNANT[value] for value in given.values()}
    if len(grades) > 1:
        raise DataError(f"{where}: {' and '.join(given)} contradict each other")
    return None if not grades else malignant if grades.pop() else "benign"
