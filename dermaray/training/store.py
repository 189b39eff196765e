"""What a run keeps of itself until it has ended, and finds again when the same command is given after it was killed."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow.fs as pafs
import ray.train

from dermaray.config import RunConfig
from dermaray.data.storage import absolute, locate
from dermaray.data.store_errors import STORE_ERRORS, explained
from dermaray.errors import DataError, OutputError, TrainingError
from dermaray.training.state import RunState
from dermaray.training.unfinished import (
    CHECKPOINTS,
    JOB_FILE,
    SUFFIX,
    TRIALS,
    check_job,
    empty,
    refuse,
    settings_of,
    unfinished,
    write_job,
)

STATE_FILE = "state.npz"

_PROBE = ".written"


class Found(NamedTuple):
    """A checkpoint, and the state in it."""

    checkpoint: ray.train.Checkpoint
    state: RunState


class RunStore:
    """The folder or prefix of a run that has not ended: what run it is, and a folder for each attempt at it.

    Attributes:
        place: A local path, or a URI.
        filesystem: Of the place.
        path: The place in it.
        folder: A local folder of the driver's, for what is not needed to go on.
    """

    def __init__(self, place: str, folder: Path) -> None:
        self.place, self.folder = place, folder
        self._found: Found | None = None
        self.filesystem, self.path = locate(place)

    @classmethod
    @contextmanager
    def open(cls, config: RunConfig, data_digest: str, *, new: bool) -> "Iterator[RunStore]":
        """Yield the store of a run, new or as an earlier process left it; no other process of this machine has it.

        What holds no checkpoint in the end is removed: there is nothing to go on from.

        Args:
            config: The run.
            data_digest: Of its manifest.
            new: Drop what an earlier process left.

        Raises:
            OutputError: The place cannot be written; another process has it; or what is there is of a run with other
                settings or other data.
        """
        with unfinished(Path(config.out)) as folder:
            place = str(config.checkpoint.storage)
            try:
                if new:
                    empty(folder)
                else:
                    _check_kept(folder, config)
                place = str(folder / CHECKPOINTS) if config.checkpoint.storage is None else _below(config)
                store = cls(place, folder)
                store._begin(config, data_digest, new)
            except (*STORE_ERRORS, DataError) as error:
                raise _unusable(place, error) from error
            try:
                yield store
            finally:
                with suppress(*STORE_ERRORS):
                    if store._latest() is None:
                        store.remove()

    def attempt(self) -> str:
        """Return a new name for an attempt, after all that are there, for which the place can be written.

        Raises:
            OutputError: It cannot.
        """
        name = f"attempt-{len(self._attempts()) + 1:04}"
        try:
            self.filesystem.create_dir(f"{self.path}/{name}")
            with self.filesystem.open_output_stream(f"{self.path}/{name}/{_PROBE}") as file:
                file.write(b"written before the first checkpoint")
        except STORE_ERRORS as error:
            raise self.unusable(error) from error
        return name

    def latest(self) -> Found | None:
        """Return the last checkpoint that is whole, or None; one that was cut short by a kill is passed over.

        Raises:
            OutputError: The place cannot be read.
        """
        try:
            return self._latest()
        except STORE_ERRORS as error:
            raise self.unusable(error) from error

    def remove(self) -> None:
        """Drop all of it: the run has ended."""
        try:
            self._clear()
        except STORE_ERRORS as error:
            raise self.unusable(error) from error
        empty(self.folder)

    def unusable(self, error: Exception) -> OutputError:
        """Return what an error of the place means."""
        return _unusable(self.place, error)

    def _begin(self, config: RunConfig, data_digest: str, new: bool) -> None:
        job = {"settings": settings_of(config), "data": data_digest}
        if not new and self._latest() is not None:
            check_job(self.filesystem, self.path, job)
            return
        self._clear()
        self.filesystem.create_dir(self.path)
        write_job(self.filesystem, self.path, job)

    def _clear(self) -> None:
        """Delete what is the run's own, and nothing else that somebody may keep there."""
        for attempt in self._attempts():
            self.filesystem.delete_dir(f"{self.path}/{attempt}")
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(f"{self.path}/{JOB_FILE}")
        found = self.filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
        if not found and self.filesystem.get_file_info(self.path).type == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.path)

    def _latest(self) -> Found | None:
        for attempt in reversed(self._attempts()):
            for folder in reversed(self._folders(f"{self.path}/{attempt}")):
                path = f"{self.path}/{attempt}/{folder}"
                # A checkpoint that is whole does not change any more.
                if self._found is not None and self._found.checkpoint.path == path:
                    return self._found
                checkpoint = ray.train.Checkpoint(path, self.filesystem)
                with suppress(FileNotFoundError, TrainingError):
                    self._found = Found(checkpoint, read_state(checkpoint))
                    return self._found
        return None

    def _attempts(self) -> list[str]:
        return [name for name in self._folders(self.path) if name.startswith("attempt-")]

    def _folders(self, path: str) -> list[str]:
        found = self.filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)


def read_state(checkpoint: ray.train.Checkpoint) -> RunState:
    """Read the state that a checkpoint holds.

    Raises:
        TrainingError: As `RunState.read`.
        OSError: The storage cannot be read.
    """
    with checkpoint.filesystem.open_input_file(f"{checkpoint.path}/{STATE_FILE}") as file:
        return RunState.read(file)


def keeps_checkpoint(folder: Path) -> bool:
    """Tell whether a hidden folder keeps a training run that can be gone on with."""
    here = folder / CHECKPOINTS
    return here.exists() and RunStore(str(here), folder).latest() is not None


def _check_kept(folder: Path, config: RunConfig) -> None:
    """Check that a hidden folder keeps nothing that this run would not go on with, and would remove at its end.

    Raises:
        OutputError: It does.
    """
    if (folder / TRIALS).exists():
        refuse(folder, "a search that has not ended")
    if config.checkpoint.storage is not None and keeps_checkpoint(folder):
        refuse(folder, "this run's checkpoints, which were kept without checkpoint.storage")


def _unusable(place: str, error: Exception) -> OutputError:
    return OutputError(f"the run cannot be kept: {error if isinstance(error, DataError) else explained(place, error)}")


def _below(config: RunConfig) -> str:
    """Return the run's own place below `checkpoint.storage`; what follows a `?` stays at the end.

    Runs of one name, as those of several folds, may share a storage: their outputs differ.
    """
    storage = absolute(str(config.checkpoint.storage))
    # For its checks: with a name behind it, "s3://" would be a bucket.
    locate(storage)
    base, mark, query = storage.partition("?")
    # As it was given, so that the same command finds it from another checkout.
    out = hashlib.sha256(config.out.encode()).hexdigest()[:8]
    return f"{base.rstrip('/')}/.{config.name}-{out}{SUFFIX}{mark}{query}"
