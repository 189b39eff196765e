"""From the files of a source to its images: class folders, or images that a CSV lists."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from dermaray.data.copies import is_augmentors
from dermaray.data.source import SourceImage, is_image_name
from dermaray.data.storage import Tree, check_named
from dermaray.data.tables import Table, fill_in, find_record, ids_of, merge, read_table
from dermaray.errors import DataError
from dermaray.labels import agree, diagnosis_code, normalise

_SPLIT_OF_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_ADDED_TO_SPLITS = re.compile(r"[ _-]?(?:dir|folder|set|dataset|data|split)$")
_WORDS = re.compile(r"[ _-]+")
_PART = re.compile(r"(?:.*[ _-])?part[ _-]?\d+|.*_input", re.IGNORECASE)
"""What folders of images are called of which a data set comes in several: `HAM10000_images_part_1`."""

_NAMED = 3

_Found = tuple[SourceImage, PurePosixPath | None]
_Within = defaultdict[PurePosixPath, list[PurePosixPath]]


def find_tables(tree: Tree) -> list[Table]:
    """Read the CSVs of known columns that lie in the source's folder or one level below.

    Raises:
        DataError: See `read_table`.
    """
    paths = [path for path in tree.files if path.suffix.lower() == ".csv" and len(path.parts) <= 2]
    return [table for path in paths if (table := read_table(tree.uri(path)))]


def read_images(tree: Tree) -> list[SourceImage]:
    """Return the images of a source, sorted by id.

    Raises:
        DataError: See `dermaray.data.formats.read_source`.
    """
    tables = find_tables(tree)
    # Who sorted images into Train/melanoma meant it; a table beside them adds what else it knows.
    if any(table.labelled for table in tables) and not _has_classes_in_splits(tree, tables):
        found = list(_read_listed(tree, tables))
    else:
        found = list(_read_class_folders(tree, tables))
    return sorted(_with_unique_ids(found), key=lambda image: image.image_id)


def _images(tree: Tree) -> Iterator[PurePosixPath]:
    for path in tree.files:
        if is_image_name(path):
            check_named(tree.uri(path), "a manifest is")
            yield path


def _records(tree: Tree, tables: Sequence[Table]) -> dict[str, SourceImage]:
    return merge(tables, {path.stem for path in _images(tree)})


def _read_class_folders(tree: Tree, tables: Sequence[Table]) -> Iterator[_Found]:
    parents = _split_folders(tree)
    within = _folders_within(tree)
    outputs = {folder for parent in parents for folder in within[parent] if _is_output(tree, folder, within)}
    classes = {parent: [folder for folder in within[parent] if folder not in outputs] for parent in parents}
    if tables and max(len(folders) for folders in classes.values()) < 2:
        raise DataError(f"{tables[0].place} gives no labels, and no other CSV does. Add the one with the ground truth")
    for parent, folders in classes.items():
        if not folders:
            shown = tree.uri(parent)
            raise DataError(f"{shown} holds no folder. One folder per class was expected, with the images in it")
        _check_classes(tree.uri(parent), folders, within)
    known = _records(tree, tables)
    silent = bool(known)
    empty = {folder for folders in classes.values() for folder in folders}
    for path in _images(tree):
        top = PurePosixPath(path.parts[0])
        parent = top if top in parents else PurePosixPath()
        parts = path.parts[len(parent.parts) :]
        if parent / parts[0] in outputs:
            parts = parts[1:]
        # An image beside the class folders, rather than in one, has no label.
        label = parts[0] if len(parts) > 1 else None
        if label is not None:
            empty.discard(parent / label)
        record = find_record(path.stem, known)
        silent &= record is None
        image = SourceImage(path.stem, tree.uri(path), label, official_split=parents.get(parent))
        _check_label(image, record)
        yield fill_in(image, record), path
    if silent:
        raise DataError(
            f"not one of the {len(known):,} images that {tables[0].place} names is below {tree.root}. The names of "
            "files, without suffix, were expected; or take the CSV away"
        )
    if empty:
        raise DataError(f"class folder {tree.uri(min(empty))} holds no image. Put images in it or remove it")


def _check_label(image: SourceImage, record: SourceImage | None) -> None:
    if record and image.label and record.label and agree(image.label, record.label) is False:
        raise DataError(
            f"{image.uri} is {record.label} in the CSV beside it. Put it into the folder of that class, or take the "
            "CSV away: as --reference it decides which of such images are right"
        )


def _folders_within(tree: Tree) -> _Within:
    within: _Within = defaultdict(list)
    for folder in tree.folders:
        within[folder.parent].append(folder)
    return within


def _is_output(tree: Tree, folder: PurePosixPath, within: _Within) -> bool:
    """Tell whether a folder is what Augmentor wrote beside class folders: one for each, with only copies in it."""
    classes = {other.name for other in within[folder.parent] if other != folder}
    if not within[folder] or not {copied.name for copied in within[folder]} <= classes:
        return False
    images = [path for path in tree.files if folder in path.parents and is_image_name(path)]
    return bool(images) and all(path.parent != folder and is_augmentors(path.stem) for path in images)


def _check_classes(place: str, folders: Sequence[PurePosixPath], within: _Within) -> None:
    """Refuse folders that are none of classes: several of them hold the same folders, so it is those, or neither.

    Diagnoses are classes all the same (`melanoma/clinical`), unless what is in them are splits.
    """
    parts = [folder.name for folder in folders if _PART.fullmatch(folder.name)]
    if parts and not any(diagnosis_code(folder.name) for folder in folders):
        raise DataError(
            f"folders of classes were expected in {place}. Received: {parts[0]}, which is called like a part of a data "
            "set, and no CSV there gives diagnoses in columns that are known. Rename the folder if it is a class"
        )
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for folder in folders:
        names = tuple(sorted(inner.name for inner in within[folder]))
        if len(names) > 1 and (diagnosis_code(folder.name) is None or any(map(_split_of, names))):
            holders[names].append(folder.name)
    for names, holding in holders.items():
        if len(holding) > 1:
            raise DataError(
                f"folders of classes were expected in {place}, within Train, Val and Test if need be. Received: "
                f"{' and '.join(holding[:_NAMED])}, which hold the same folders: {', '.join(names[:_NAMED])}"
            )


def _split_folders(tree: Tree) -> dict[PurePosixPath, str | None]:
    """Return the folders that class folders lie in, each with the split that it stands for."""
    top = [folder for folder in tree.folders if len(folder.parts) == 1]
    splits: dict[PurePosixPath, str | None] = {folder: split for folder in top if (split := _split_of(folder.name))}
    if splits and len(splits) < len(top):
        names = ", ".join(folder.name for folder in top)
        raise DataError(f"{tree.root} mixes split folders and class folders: {names}. Have one kind or the other")
    return splits or {PurePosixPath(): None}


def _has_classes_in_splits(tree: Tree, tables: Sequence[Table]) -> bool:
    """Tell whether folders of splits hold folders of classes: called like diagnoses, or in several of them the same."""
    labels = {normalise(image.label) for table in tables for image in table.rows.values() if image.label}
    within: dict[PurePosixPath, list[str]] = defaultdict(list)
    for folder in tree.folders:
        if len(folder.parts) == 2 and _split_of(folder.parts[0]) and not _PART.fullmatch(folder.name):
            within[folder.parent].append(folder.name)
    times = Counter(name for names in within.values() for name in names)
    named = [name for name in times if diagnosis_code(name) or normalise(name) in labels]
    several = any(len(names) > 1 for names in within.values())
    return several and (len(named) > len(times) / 2 or sum(count > 1 for count in times.values()) > 1)


def _split_of(folder: str) -> str | None:
    """Return the split that a folder stands for by its name, `Test` or `test_dir`, or None."""
    return _SPLIT_OF_NAME.get(_ADDED_TO_SPLITS.sub("", folder.lower()))


def _split_within(path: PurePosixPath) -> str | None:
    """Return the split of a file by the first of its folders with a word for it: `ISIC_2019_Test_Input`, `a/test`."""
    for folder in path.parts[:-1]:
        words = {_SPLIT_OF_NAME.get(word) for word in _WORDS.split(folder.lower())} - {None}
        if split := _split_of(folder) or (words.pop() if len(words) == 1 else None):
            return split
    return None


def _listed_splits(
    tree: Tree, listed: Collection[PurePosixPath], others: Sequence[PurePosixPath]
) -> dict[PurePosixPath, str]:
    """Return the split of each file in the folder of one, where all those that rows give a label lie in such folders.

    Raises:
        DataError: Only some of those lie there: nobody can tell which split the others belong to.
    """
    splits = {path: split for path in (*listed, *others) if (split := _split_within(path))}
    if not all(path in splits for path in listed):
        # Words in other places may mean something else then.
        splits = {path: split for path in (*listed, *others) if (split := _split_of(path.parts[0])) and path.parts[1:]}
    strays = [path for path in listed if path not in splits]
    if strays and len(strays) < len(listed):
        folders = " and ".join(sorted({path.parts[0] for path in listed if path in splits}))
        raise DataError(
            f"of the images that CSVs list, {len(listed) - len(strays):,} lie in {folders}, {len(strays):,} elsewhere: "
            f"{tree.uri(min(strays))}, say. All in folders of splits, or none, was expected"
        )
    return splits if len({splits.get(path) for path in listed}) > 1 else {}


def _read_listed(tree: Tree, tables: Sequence[Table]) -> Iterator[_Found]:
    records = _records(tree, tables)
    files, others = _match(tree, set(records))
    if not files:
        places = " and ".join(table.place for table in tables)
        raise DataError(f"not one of the {len(records)} images that {places} list is below {tree.root}")
    labelled = [file for image_id, file in files.items() if records[image_id].label is not None]
    unlabelled = [file for image_id, file in files.items() if records[image_id].label is None]
    splits = _listed_splits(tree, labelled, [*unlabelled, *others])
    for image_id, record in records.items():
        file = files.get(image_id)
        if file is None:
            yield record, None
        else:
            yield replace(record, uri=tree.uri(file), official_split=splits.get(file)), file
    for path in others:
        yield SourceImage(path.stem, tree.uri(path), None, official_split=splits.get(path)), path


def _match(tree: Tree, ids: set[str]) -> tuple[dict[str, PurePosixPath], list[PurePosixPath]]:
    """Return the file of each id that has one, and the files that are left over."""
    files: dict[str, PurePosixPath] = {}
    others = list(_images(tree))
    # A file of just its name has the first claim to a row.
    for form in range(len(ids_of(""))):
        taken, paths, others = set(files), others, []
        for path in paths:
            image_id = ids_of(path.stem)[form]
            if image_id not in ids or image_id in taken:
                others.append(path)
            elif files.setdefault(image_id, path) != path:
                names = f"{tree.uri(path)} and {tree.uri(files[image_id])}"
                raise DataError(f"{names} have one name. A row of the CSV could mean either")
    return files, others


def _with_unique_ids(found: Sequence[_Found]) -> Iterator[SourceImage]:
    """Give images whose names repeat (one in Train, one in Test, say) the path within the source as their id."""
    times = Counter(image.image_id for image, _ in found)
    for image, path in found:
        yield image if times[image.image_id] == 1 or path is None else replace(image, image_id=str(path))
