"""What is to be scored, as people have it: folders, archives, tables, lists and patterns, several at a time."""

import glob
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa

from dermaray.data.archive import Listing, files_listing, list_members, list_stored_archive, table_listing
from dermaray.data.image_tables import SUFFIXES, beside, bytes_column, parts_of, paths_in
from dermaray.data.manifest import Manifest, is_manifest_file
from dermaray.data.source import is_image_name, kind_of
from dermaray.data.storage import list_tree, local_path, name_of
from dermaray.errors import DataError

LISTS = (".txt", ".lst")
"""Suffixes of files that name one image a line."""

_CONTAINERS = (*SUFFIXES, ".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz")


def list_inputs(places: Sequence[str]) -> Listing:
    """List the images of one input or several.

    Args:
        places: Each one of these:

            - a folder, with all below it; a zip; a tar, compressed or not; one image;
            - a pattern of such files, as `shards/*.tar` or `images/**/*.jpg`; folders that match are passed over;
            - a list: a `.txt` or `.lst` file with one path or URI a line; relative ones count from its folder;
            - a Parquet or Arrow file with a column of images' bytes or paths (see `dermaray.data.image_tables`);
            - a manifest, or the folder that `dermaray prepare` wrote;
            - a prefix, an image, an archive or a table in an object store (see `dermaray.data.storage`), or a pattern
              of images or archives there, as `s3://bucket/shards/*.tar`.

    Returns:
        The images of all, in the order of the inputs.

    Raises:
        DataError: An input is missing, of another kind, damaged, or holds no image.
    """
    listings = [listing for place in places for listing in _listings(place)]
    ignored: Counter[str] = Counter()
    for listing in listings:
        ignored.update(listing.ignored)
    known = [listing.images for listing in listings]
    images = None if None in known else sum(count or 0 for count in known)
    return Listing(pa.concat_tables([one.members for one in listings]), images, dict(sorted(ignored.items())))


def _listings(place: str) -> Iterator[Listing]:
    path = local_path(place)
    if path is None and glob.has_magic(place.partition("?")[0]):
        yield from _matching_in_store(place)
    elif path is None:
        yield _in_store(place)
    elif path.exists() or not glob.has_magic(place):
        yield _local(path.absolute())
    else:
        yield from _matching(place, path)


def _matching(place: str, pattern: Path) -> Iterator[Listing]:
    files = [path for path in map(Path, sorted(glob.glob(str(pattern), recursive=True))) if path.is_file()]
    images = [str(path.absolute()) for path in files if is_image_name(path)]
    # Text beside images is no list of images, unless a list was asked for.
    containers = (*_CONTAINERS, *LISTS) if pattern.suffix.lower() in LISTS else _CONTAINERS
    others = [path for path in files if path.suffix.lower() in containers]
    if not images and not others:
        raise DataError(f"{place} matches {len(files)} files, none of them an image, an archive or a table")
    passed = Counter(kind_of(path) for path in files if not is_image_name(path))
    for path in others:
        passed.pop(path.suffix.lower(), None)
    # All images at once: there may be a million.
    yield _files(images, passed)
    for path in others:
        yield _local(path.absolute())


def _matching_in_store(pattern: str) -> Iterator[Listing]:
    base, mark, query = pattern.partition("?")
    fixed = re.split(r"[*[]", base)[0].rpartition("/")[0]
    tree = list_tree(f"{fixed}{mark}{query}")
    wanted = base.removeprefix(f"{fixed}/")
    files = [file for file in tree.files if _matches(file.parts, wanted.split("/"))]
    images = [tree.uri(file) for file in files if is_image_name(file)]
    others = [tree.uri(file) for file in files if file.suffix.lower() in _CONTAINERS]
    if not images and not others:
        raise DataError(f"{pattern} matches {len(files)} objects, none of them an image, an archive or a table")
    yield _files(images)
    for uri in others:
        yield _in_store(uri)


def _matches(parts: tuple[str, ...], pattern: list[str]) -> bool:
    """Tell whether a path is one of those that a pattern names; `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _local(path: Path) -> Listing:
    suffix = path.suffix.lower()
    if path.is_dir() and (path / "manifest.parquet").is_file():
        return _local(path / "manifest.parquet")
    if path.is_file() and suffix in LISTS:
        return _of_list(path)
    if path.is_file() and suffix in SUFFIXES:
        return _of_manifest(path) if is_manifest_file(path) else _of_table(str(path))
    return list_members(path)


def _of_manifest(path: Path) -> Listing:
    return _files(Manifest.read(path).table["uri"].to_pylist())


def _of_list(path: Path) -> Listing:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    places = [beside(str(path), line.strip()) for line in lines if line.strip()]
    if not places:
        raise DataError(f"{path} names no image. One path or URI a line was expected")
    return _files(places)


def _of_table(place: str) -> Listing:
    column = bytes_column(place)
    listing = _files(paths_in(place)) if column is None else table_listing(place, column, parts_of(place))
    if not listing.images:
        raise DataError(f"{place} holds no row")
    return listing


def _in_store(place: str) -> Listing:
    name = name_of(place)
    if name.suffix.lower() in SUFFIXES:
        return _of_table(place)
    if is_image_name(name):
        return _files([place])
    if name.suffix.lower() in _CONTAINERS:
        return list_stored_archive(place)
    tree = list_tree(place)
    images = [tree.uri(file) for file in tree.files if is_image_name(file)]
    others = Counter(kind_of(file) for file in tree.files if not is_image_name(file))
    if not images:
        raise DataError(f"{place} holds no image. {sum(others.values())} objects of other kinds are below it")
    return _files(images, others)


def _files(places: list[str], passed: Mapping[str, int] | None = None) -> Listing:
    return Listing(files_listing(places), len(places), dict(passed or {}))
