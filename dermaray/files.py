"""Outputs that appear whole or not at all, and digests of files."""

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


@contextmanager
def atomic_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target`; rename it to `target` when the block ends well, remove it otherwise.

    Args:
        target: The folder to make. Its parents are made where they are missing.
        overwrite: Replace `target` where it already holds files; otherwise that is an error.

    Raises:
        OutputError: `target` holds files and `overwrite` is false, or the place cannot be written.
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
        yield partial
        if target.exists():
            old = partial.with_suffix(".replaced")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_output(target: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that already holds files, before any work is done for it.

    Raises:
        OutputError: `target` is a file, or holds files and `overwrite` is false.
    """
    if target.is_dir() and (overwrite or not any(target.iterdir())):
        return
    if target.exists():
        kind = "holds files" if target.is_dir() else "is a file"
        raise OutputError(f"{target} {kind}. Choose a new folder" + (", or add --overwrite" if target.is_dir() else ""))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, by atomic rename."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
