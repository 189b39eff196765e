"""From a source of images, as people have them, to one list; and from a reference to what it says of each image."""

from collections.abc import Sequence
from pathlib import Path

from dermaray.data.readers import find_tables, read_images
from dermaray.data.source import SourceImage
from dermaray.data.storage import list_tree, local_path
from dermaray.data.tables import KNOWN_FORMS, merge, read_table
from dermaray.errors import DataError


def read_source(source: str | Path) -> list[SourceImage]:
    """List the images of a source, sorted by id.

    Args:
        source: A local folder or the URI of a prefix in an object store (see `dermaray.data.storage`), of one of two
            kinds. Class folders, one level deeper under `Train`, `Val` and `Test` where it has those; a CSV beside them
            adds what else it knows, and the copies that Augmentor wrote into a folder beside them are of their classes.
            Or images anywhere below it, in `Train`, `Val` and `Test` where it has those, with CSVs that give their
            labels, in the folder itself or one level below: those of HAM10000, of the ISIC challenges of 2016 to 2020,
            or the `metadata.csv` that the ISIC archive's own downloader writes (see `dermaray.data.tables`).

    Returns:
        One per image. A row of a CSV belongs to the file of that name, or of that name with or without `_downsampled`.
        A row without a file has no `uri`; a file without a row, or beside the class folders, has no `label`. The id is
        the row's, otherwise the file's name without suffix, or the path within the source where names repeat. Hidden
        files and folders are passed over.

    Raises:
        DataError: The source is missing, cannot be listed or is of neither kind; split folders and class folders are
            mixed; folders that hold the same folders, or are called like parts of a data set, are there in place of
            class folders; a class folder holds no image; a CSV is damaged, has other separators than commas, or
            contradicts itself, another or a class folder; two files could be meant by one row; none of the rows has a
            file; or only some of those files lie in split folders.
    """
    folder = local_path(source)
    if folder is not None and not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(
            f"{folder} {what}. A folder of class folders, or one of images with the CSV of HAM10000 or ISIC, was "
            "expected"
        )
    return read_images(list_tree(source))


def read_reference(paths: Sequence[str]) -> dict[str, SourceImage]:
    """Read ground truth and metadata to hold a source's own labels against.

    Args:
        paths: CSVs of the kinds that `read_source` knows, or folders with such CSVs in them or one level below; local,
            or URIs of an object store.

    Returns:
        What the CSVs say together, by the image ids that they use; each without `uri`, and without `label` where only
        metadata is known. The ground truth of ISIC 2019 has ids that end in `_downsampled`.

    Raises:
        DataError: A path is missing, holds no CSV of a known kind, or is damaged; or two CSVs contradict each other
            about a label.
    """
    tables = []
    for path in paths:
        folder = local_path(path)
        if path.partition("?")[0].lower().endswith(".csv") and not (folder and folder.is_dir()):
            table = read_table(path)
            found = [table] if table else []
        elif folder is not None and not folder.is_dir():
            what = "is neither" if folder.exists() else "does not exist"
            raise DataError(f"{folder} {what}. A CSV with ground truth, or a folder of them, was expected")
        else:
            found = find_tables(list_tree(path))
        if not found:
            raise DataError(f"{path} holds no CSV of a known kind. Known are {KNOWN_FORMS}")
        tables += found
    return merge(tables)
