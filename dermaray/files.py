"""Outputs that appear whole or not at all, and digests of files."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dermaray.errors import OutputError

MARK = ".dermaray"
"""The file that tells an output folder from a folder of the user's: nothing without it is ever replaced."""


def check_local(place: str) -> str:
    """Return the path of a local folder; as a `Path` a URI would silently be one too.

    Raises:
        ValueError: It is a URI.
    """
    if "://" in place:
        raise ValueError(f"a local folder was expected. Received: {place}")
    return place


@contextmanager
def atomic_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target`; rename it to `target` when the block ends well, remove it otherwise.

    Args:
        target: The folder to make. Its parents are made where they are missing.
        overwrite: Replace `target` where it is an earlier output; otherwise that is an error.

    Raises:
        OutputError: `target` may not be replaced, or the place cannot be written or is full.
    """
    check_output(target, overwrite=overwrite)
    # Through a link, the folder that it leads to is replaced, and the link stays.
    target = target.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise OutputError(f"cannot write to {target.parent}: {error.strerror}. Choose another folder") from error
    try:
        partial.chmod(0o755)
        (partial / MARK).touch()
        yield partial
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"cannot write to {target.parent}: {error.strerror}. Make room there") from error
        raise
    _publish(partial, target, overwrite=overwrite)


def check_output(target: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that may not be replaced, before any work is done for it.

    Raises:
        OutputError: `target` is a file, holds files and `overwrite` is false, or is no output of dermaray's.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise OutputError(f"{target} is a file. Choose a new folder")
    if not (target / MARK).exists():
        raise OutputError(f"{target} holds files that dermaray did not write. Choose a new folder")
    if not overwrite:
        raise OutputError(f"{target} holds an earlier result. Choose a new folder, or add --overwrite")


def _publish(partial: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a finished folder into place; whatever is in the way, the finished work is kept."""
    try:
        # Another run may have come first.
        check_output(target, overwrite=overwrite)
        if target.exists() and any(target.iterdir()):
            old = partial.with_suffix(".replaced")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            partial.rename(target)
    except (OSError, OutputError) as error:
        raise OutputError(f"the result is complete, but could not become {target}: {error}. It is {partial}") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, by atomic rename."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
