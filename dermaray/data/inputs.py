"""What is to be scored, as people have it: folders, archives, tables, lists and patterns, several at a time."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise
from pathlib import Path

from dermaray.data.archive import (
    Listing,
    files_listing,
    lost_listing,
    paths_listing,
    stream_members,
    stream_stored_archive,
    table_listing,
)
from dermaray.data.image_tables import SUFFIXES, beside, bytes_column, parts_of, paths_in
from dermaray.data.manifest import Manifest, is_manifest_file
from dermaray.data.source import is_image_file, is_image_name, kind_of
from dermaray.data.storage import check_named, list_tree, local_path, locate, name_of, shown, stamp, stream_objects
from dermaray.errors import DataError, StoreError

LISTS = (".txt", ".lst")
"""Suffixes of files that name one image a line."""

_CONTAINERS = (*SUFFIXES, ".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz")


def stream_inputs(places: Sequence[str]) -> Iterator[Listing]:
    """List the images of one input or several, and tell of them as they are found.

    Args:
        places: Each one of these:

            - a folder, with all below it; a zip; a tar, compressed or not; one image;
            - a pattern of such files, as `shards/*.tar` or `images/**/*.jpg`; folders that match are passed over and
              counted;
            - a list: a `.txt` or `.lst` file with one path or URI a line; relative ones count from its folder;
            - a Parquet or Arrow file with a column of images' bytes or paths (see `dermaray.data.image_tables`);
            - a manifest, or the folder that `dermaray prepare` wrote;
            - a prefix, an image, an archive or a table in an object store (see `dermaray.data.storage`), or a pattern
              of images or archives there, as `s3://bucket/shards/*.tar`.

    Yields:
        The images of all, in the order of the inputs. An archive or a table that cannot be listed has a row for itself
        where it is one of several.

    Raises:
        DataError: An input is missing, of another kind, damaged, or holds no image; not before what comes earlier was
            told of.
    """
    for place in places:
        listings = _listings(place)
        yield from _one_of_several(place, listings) if len(places) > 1 and _is_container(place) else listings


def _is_container(place: str) -> bool:
    """Tell whether a place is an archive or a table, by its name, and there."""
    if name_of(place).suffix.lower() not in _CONTAINERS:
        return False
    path = local_path(place)
    if path is not None:
        return path.is_file()
    # A store that nobody knows is the user's mistake.
    locate(place)
    try:
        return bool(stamp(place))
    except StoreError:
        raise
    except DataError:
        # It may not be asked for. Who lists it says so.
        return True


def _one_of_several(place: str, listings: Iterator[Listing]) -> Iterator[Listing]:
    """List an archive or a table among others, which are not to suffer where it is damaged or holds no image."""
    try:
        yield from listings
    except StoreError:
        raise
    except DataError as error:
        path = local_path(place)
        yield lost_listing(place if path is None else str(path.absolute()), str(error))


def _listings(place: str) -> Iterator[Listing]:
    path = local_path(place)
    if path is None and glob.has_magic(place.partition("?")[0]):
        yield from _matching_in_store(place)
    elif path is None:
        yield from _in_store(place)
    elif path.exists() or not glob.has_magic(place):
        yield from _local(path.absolute())
    else:
        yield from _matching(place, path)


def _matching(place: str, pattern: Path) -> Iterator[Listing]:
    files, folders = _files_and_folders(sorted(glob.glob(str(pattern), recursive=True)))
    unlisted = _unlisted_folders(pattern)
    images = [path for path in files if is_image_file(path)]
    # Text beside images is no list of images, unless a list was asked for.
    containers = (*_CONTAINERS, *LISTS) if pattern.suffix.lower() in LISTS else _CONTAINERS
    others = [path for path in files if path.suffix.lower() in containers]
    if not images and not others:
        hint = f", and {len(folders)} folders: name them, or use **" if folders and "**" not in pattern.parts else ""
        why = "".join(f". {problem}" for _, problem in unlisted)
        raise DataError(f"{place} matches {len(files)} files, none of them an image, an archive or a table{hint}{why}")
    passed = Counter(kind_of(path) for path in {*files}.difference(images, others))
    if "**" not in pattern.parts:
        passed.update(f"{shown(path.name)}/" for path in folders)
    # All images at once: there may be a million.
    yield _files([str(path.absolute()) for path in images], passed)
    for path in others:
        yield from _one_of_several(str(path.absolute()), _local(path.absolute()))
    for folder, problem in unlisted:
        yield lost_listing(folder, problem)


def _unlisted_folders(pattern: Path) -> list[tuple[str, str]]:
    """Return the folders that a pattern looks into and that cannot be listed, which `glob` keeps quiet, and why."""
    problems: dict[str, tuple[str, str]] = {}
    for depth, (before, part) in enumerate(pairwise(("", *pattern.parts))):
        if not glob.has_magic(part) or before == "**":
            continue
        above = Path(*pattern.parts[: depth + (part == "**")])
        for folder in sorted(glob.glob(os.path.join(above, ""), recursive=True)):
            try:
                os.scandir(folder).close()
            except OSError as error:
                path = os.path.abspath(folder)
                problem = f"{shown(path)} cannot be listed: {error.strerror}"
                problems.setdefault(os.path.realpath(folder), (path, problem))
    return list(problems.values())


def _files_and_folders(matching: list[str]) -> tuple[list[Path], list[Path]]:
    """Part what matches a pattern; of files that are reached by several ways, since `**` goes into links, the first."""
    files: dict[tuple[str, str], Path] = {}
    folders = []
    real = cache(os.path.realpath)
    for path in map(Path, matching):
        # A link to nothing has its row, as it has in a folder.
        if path.is_file() or (is_image_name(path) and not path.is_dir()):
            files.setdefault((real(path.parent), path.name), path)
        elif path.is_dir():
            folders.append(path)
    return list(files.values()), folders


def _matching_in_store(pattern: str) -> Iterator[Listing]:
    base, mark, query = pattern.partition("?")
    fixed = re.split(r"[*[]", base)[0].rpartition("/")[0]
    tree = list_tree(f"{fixed}{mark}{query}")
    wanted = base.removeprefix(f"{fixed}/")
    files = [file for file in tree.files if _matches(file.parts, wanted.split("/"))]
    images = [file for file in files if is_image_name(file)]
    others = [file for file in files if file.suffix.lower() in _CONTAINERS]
    if not images and not others:
        raise DataError(f"{pattern} matches {len(files)} objects, none of them an image, an archive or a table")
    passed = Counter(kind_of(file) for file in {*files}.difference(images, others))
    yield _files([tree.uri(file) for file in images], passed)
    for uri in map(tree.uri, others):
        yield from _one_of_several(uri, _in_store(uri))


def _matches(parts: tuple[str, ...], pattern: list[str]) -> bool:
    """Tell whether a path is one of those that a pattern names; `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _local(path: Path) -> Iterator[Listing]:
    suffix = path.suffix.lower()
    if path.is_dir() and is_manifest_file(path / "manifest.parquet", damaged=True):
        yield _of_manifest(path / "manifest.parquet")
    elif path.is_file() and suffix in LISTS:
        yield _of_list(path)
    elif path.is_file() and suffix in SUFFIXES:
        check_named(str(path), "rows name their table")
        yield _of_manifest(path) if is_manifest_file(path) else _of_table(str(path))
    else:
        yield from stream_members(path)


def _of_manifest(path: Path) -> Listing:
    rows = Manifest.read(path).table
    return Listing(files_listing(rows["uri"].to_pylist(), rows["image_id"].to_pylist()), rows.num_rows, {})


def _of_list(path: Path) -> Listing:
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    places = [beside(str(path), line.strip()) for line in lines if line.strip()]
    if not places:
        raise DataError(f"{path} names no image. One path or URI a line was expected")
    return _files(places)


def _of_table(place: str) -> Listing:
    column = bytes_column(place)
    listing = paths_listing(place, paths_in(place)) if column is None else table_listing(place, column, parts_of(place))
    if not listing.images:
        raise DataError(f"{place} holds no row")
    return listing


def _in_store(place: str) -> Iterator[Listing]:
    name = name_of(place)
    if name.suffix.lower() in SUFFIXES:
        yield _of_table(place)
    elif is_image_name(name):
        yield _files([place])
    elif name.suffix.lower() in _CONTAINERS:
        yield from stream_stored_archive(place)
    else:
        yield from _below_prefix(place)


def _below_prefix(place: str) -> Iterator[Listing]:
    found = passed = 0
    for tree in stream_objects(place):
        images = [tree.uri(file) for file in tree.files if is_image_name(file)]
        others = Counter(kind_of(file) for file in tree.files if not is_image_name(file))
        found, passed = found + len(images), passed + others.total()
        yield _files(images, others)
    if not found:
        raise DataError(f"{place} holds no image. {passed} objects of other kinds are below it")


def _files(places: list[str], passed: Mapping[str, int] | None = None) -> Listing:
    return Listing(files_listing(places), len(places), dict(passed or {}))
