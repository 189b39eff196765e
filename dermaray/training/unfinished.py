"""The hidden folder beside an output, in which a job that has not ended keeps itself, and whose job that is."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pyarrow.fs as pafs

from dermaray.config import RunConfig
from dermaray.errors import OutputError
from dermaray.yaml_config import flat

SUFFIX = ".unfinished"
"""The folder beside NAME is `.NAME.unfinished`."""

TRIALS = "tune"
"""Within it, where that is a search's: what Ray Tune keeps."""

CHECKPOINTS = "checkpoints"
"""Within it, where that is a training run's which has no storage elsewhere: its checkpoints."""

LOCK = "lock"

JOB_FILE = "run.json"
_FORMAT_VERSION = 1

_FREE_TO_CHANGE = (
    *("ingest", "checkpoint", "scaling", "tracking"),
    *("version", "decisions", "views", "weights_as", "int8"),
)
"""Settings that another part of a run may have: they do not touch what is trained."""


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """Yield the hidden folder of an output, made where it is missing; no other process of this machine has it.

    It is removed when the block ends and has left nothing in it (see `empty`).

    Raises:
        OutputError: It cannot be made or locked, or another process has it.
    """
    out = out.resolve()
    folder = out.parent / f".{out.name}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}. Choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another process is at work: it holds {folder}. Choose another folder") from None
        except OSError as error:
            _remove_empty(folder)
            raise OutputError(
                f"{folder} cannot be locked: {error.strerror}. Choose a folder on a file system with locks (flock)"
            ) from error
        try:
            yield folder
        finally:
            # Closed first: NFS keeps what is removed while it is open, under another name, and the folder with it.
            lock.close()
            _remove_empty(folder)


def refuse(folder: Path, what: str) -> NoReturn:
    """Raise OutputError: the hidden folder keeps another job."""
    raise OutputError(f"{folder} keeps {what}. Go on with that, choose another folder, or add --new to begin anew")


def empty(folder: Path) -> None:
    """Remove what a job has kept in its hidden folder, which goes itself when the block of `unfinished` ends."""
    for path in _kept(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _kept(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name != LOCK]


def _remove_empty(folder: Path) -> None:
    """Remove a folder that holds nothing but its lock."""
    if not _kept(folder):
        with suppress(OSError):
            (folder / LOCK).unlink()
            folder.rmdir()


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Return what has to be the same in all parts of a run."""
    values = config.model_dump(mode="json")
    return {key: value for key, value in values.items() if key not in _FREE_TO_CHANGE}


def write_job(filesystem: pafs.FileSystem, path: str, job: Mapping[str, Any]) -> None:
    """Write into a folder whose job it is.

    Args:
        filesystem: Of the folder.
        path: The folder, which exists.
        job: `settings`, and `data`: the digest of a manifest.
    """
    with filesystem.open_output_stream(f"{path}/{JOB_FILE}") as file:
        file.write(json.dumps({"format_version": _FORMAT_VERSION, **job}).encode())


def check_job(filesystem: pafs.FileSystem, path: str, job: Mapping[str, Any]) -> None:
    """Check that a folder is the job's own; see `write_job`.

    Raises:
        OutputError: It belongs to one with other settings or other data.
    """
    try:
        with filesystem.open_input_file(f"{path}/{JOB_FILE}") as file:
            known = json.loads(file.read())
    # Killed in its first moment.
    except (FileNotFoundError, ValueError):
        known = {}
    if known != {"format_version": _FORMAT_VERSION, **job}:
        raise OutputError(
            f"{path} keeps a job that has not ended, with {_difference(known, job)}. "
            "Give the same command as then to go on with it, or add --new to begin anew"
        )


def _difference(known: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    if known.get("data") != job["data"]:
        return "other data"
    before, now = flat(known.get("settings", {})), flat(job["settings"])
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if not changed:
        return "another version of dermaray"
    others = f" and {len(changed) - 1} other settings" if len(changed) > 1 else ""
    return f"{changed[0]}={before.get(changed[0])} in place of {now.get(changed[0])}{others}"
