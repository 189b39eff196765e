"""From the files of a source to its images: class folders, or images that a CSV lists."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from dermaray.data.copies import is_augmentors
from dermaray.data.source import SourceImage, is_image_name
from dermaray.data.storage import Tree, check_named
from dermaray.data.tables import Table, fill_in, merge, read_table
from dermaray.errors import DataError

_SPLIT_OF_FOLDER = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
_DOWNSAMPLED = "_downsampled"

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
    if any(table.labelled for table in tables) and not _has_classes_in_splits(tree):
        found = list(_read_listed(tree, tables))
    else:
        found = list(_read_class_folders(tree, tables))
    return sorted(_with_unique_ids(found), key=lambda image: image.image_id)


def _images(tree: Tree) -> Iterator[PurePosixPath]:
    for path in tree.files:
        if is_image_name(path):
            check_named(tree.uri(path), "a manifest is")
            yield path


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
    known = merge(tables)
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
        record = known.get(path.stem) or known.get(path.stem.removesuffix(_DOWNSAMPLED))
        image = SourceImage(path.stem, tree.uri(path), label, official_split=parents.get(parent))
        yield fill_in(image, record), path
    if empty:
        raise DataError(f"class folder {tree.uri(min(empty))} holds no image. Put images in it or remove it")


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
    return all(path.parent != folder and is_augmentors(path.stem) for path in images)


def _split_folders(tree: Tree) -> dict[PurePosixPath, str | None]:
    """Return the folders that class folders lie in, each with the split that it stands for."""
    top = [folder for folder in tree.folders if len(folder.parts) == 1]
    splits: dict[PurePosixPath, str | None] = {
        folder: _SPLIT_OF_FOLDER[folder.name.lower()] for folder in top if folder.name.lower() in _SPLIT_OF_FOLDER
    }
    if splits and len(splits) < len(top):
        names = ", ".join(folder.name for folder in top)
        raise DataError(f"{tree.root} mixes split folders and class folders: {names}. Have one kind or the other")
    return splits or {PurePosixPath(): None}


def _has_classes_in_splits(tree: Tree) -> bool:
    within = Counter(folder.parent for folder in tree.folders if len(folder.parts) == 2)
    return any(count > 1 and parent.name.lower() in _SPLIT_OF_FOLDER for parent, count in within.items())


def _listed_splits(files: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Return the split of each file where all of them lie in folders of splits."""
    splits = {file: _SPLIT_OF_FOLDER.get(file.parts[0].lower()) for file in files}
    found = {file: split for file, split in splits.items() if split is not None and len(file.parts) > 1}
    return found if len(found) == len(splits) and len(set(found.values())) > 1 else {}


def _read_listed(tree: Tree, tables: Sequence[Table]) -> Iterator[_Found]:
    records = merge(tables)
    files, others = _match(tree, set(records))
    if not files:
        places = " and ".join(table.place for table in tables)
        raise DataError(f"not one of the {len(records)} images that {places} list is below {tree.root}")
    splits = _listed_splits([*files.values(), *others])
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
    for suffix in ("", _DOWNSAMPLED):
        taken, paths, others = set(files), others, []
        for path in paths:
            image_id = path.stem.removesuffix(suffix)
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
