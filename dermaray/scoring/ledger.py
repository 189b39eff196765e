"""The folder that a run of bulk scoring writes, here or in an object store, and what it says of the run.

| file | what it is |
| --- | --- |
| `run.json` | which run this is: digests of the model and, once all are listed, of the inputs; the engine |
| `scores.parquet/part-NNNNN.parquet` | the rows of a shard, there as a whole or not at all |
| `progress.json` | how far the run is, for whoever watches it |
| `summary.json`, `scores.csv`, `submission.csv`, `top.html` | written when all shards are there |
| `_SUCCESS` | empty; there when every input has its row |

A run that was killed is gone on with from the shards that are there. Only the driver writes.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dermaray.data.storage import absolute, local_path, locate
from dermaray.data.store_errors import STORE_ERRORS, explained, patiently
from dermaray.errors import OutputError
from dermaray.files import MARK
from dermaray.models.rows import SCORED
from dermaray.scoring.listed import Listed

RUN, SCORES, PROGRESS, SUMMARY, TABLE, SUBMISSION, GALLERY, SUCCESS = (
    *("run.json", "scores.parquet", "progress.json", "summary.json"),
    *("scores.csv", "submission.csv", "top.html", "_SUCCESS"),
)
_FILES = (PROGRESS, SUMMARY, TABLE, SUBMISSION, GALLERY)
_FORMAT_VERSION = 4
_DIGEST = b"dermaray.listing"
"""The key under which the file of a shard says of which listing it is."""

_HELD_BYTES = 64 * 1024 * 1024
"""How much of a file for an object store is held in memory; a longer one is held in a temporary file."""

_COPIED_BYTES = 8 * 1024 * 1024
"""Given to a store at a time."""

_INPUTS = "inputs"
_DIFFERENCES = {
    "format_version": "another version of dermaray",
    "model": "another model",
    "engine": "another engine, {}",
}
_OTHER_INPUTS = "other inputs, or of these before they changed"
_PART = re.compile(r"part-(\d{5,})\.parquet")


class Ledger:
    """What a run has written so far.

    Attributes:
        place: A local path, or a URI.
    """

    def __init__(self, place: str, job: Mapping[str, Any], inputs: Listed) -> None:
        self.place = absolute(place)
        self._folder = local_path(self.place)
        self._filesystem, self._path = locate(self.place)
        self._job: dict[str, Any] = {"format_version": _FORMAT_VERSION, **job}
        self._inputs = inputs
        self._stale = False

    @classmethod
    @contextmanager
    def open(cls, place: str, job: Mapping[str, Any], inputs: Listed, *, new: bool) -> "Iterator[Ledger]":
        """Yield the ledger of a run as an earlier process left it; no other process of this machine has it.

        Nothing is removed before `begin`.

        Args:
            place: The folder, or a prefix in an object store.
            job: What the run does, as JSON values: `model` and `engine`.
            inputs: What it is done to, as far as it is listed; a run that is complete waits for the end of that.
            new: Drop what is there of any run.

        Raises:
            OutputError: The place cannot be written, belongs to another run, or holds what is not dermaray's.
            DataError: The inputs cannot be listed.
        """
        ledger = cls(place, job, inputs)
        with ledger._errors():
            ledger._check_folder()
        with ledger._locked():
            with ledger._errors():
                ledger._check_run(new)
            yield ledger

    @property
    def complete(self) -> bool:
        """Whether every input has its row."""
        return not self._stale and self.holds(SUCCESS)

    def begin(self) -> None:
        """Say which run this is, where that is not said yet, in place of what was there."""
        with self._errors():
            if self._stale:
                self.clear()
                self.tell(RUN, self._job)
                self._stale = False
            self.note_inputs()
            self._filesystem.create_dir(self._at(SCORES))

    def note_inputs(self) -> None:
        """Say what the inputs are, once they are listed to their end.

        Raises:
            OutputError: They do not end as an earlier process has found them to.
        """
        if self._inputs.ended and self._job.get(_INPUTS) != self._inputs.digest:
            if _INPUTS in self._job:
                raise self._refusal(_OTHER_INPUTS)
            self._job[_INPUTS] = self._inputs.digest
            self.tell(RUN, self._job)

    def done(self) -> set[int]:
        """Return the numbers of the shards whose rows are there."""
        if self._stale:
            return set()
        with self._errors("read"):
            # A store may have an empty object where an upload was cut short.
            files = [info for info in self._files_in(SCORES) if info.is_file and info.size]
        return {int(match[1]) for info in files if (match := _PART.fullmatch(info.base_name))}

    def publish(self, shard: int, rows: pa.Table) -> None:
        """Write the rows of a shard."""
        rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _DIGEST: self._inputs.digests[shard]})
        with self.writing(f"{SCORES}/part-{shard:05}.parquet") as file:
            pq.write_table(rows, file)

    def tell(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        with self.writing(name) as file:
            file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")

    def succeed(self) -> None:
        """Say that every input has its row."""
        with self.writing(SUCCESS):
            pass

    def rows(self, columns: list[str], shards: Iterable[int] | None = None) -> Iterator[pa.Table]:
        """Yield columns of the rows of each shard, in order, or of some shards."""
        for shard in sorted(self.done() if shards is None else shards):
            path = self._at(f"{SCORES}/part-{shard:05}.parquet")
            with self._errors("read"):
                rows = pq.read_table(path, columns=columns, filesystem=self._filesystem)
            yield rows

    def count_rows(self) -> int:
        """Return how many images have their rows."""
        with self._errors("read"):
            parts = [self._at(f"{SCORES}/part-{shard:05}.parquet") for shard in self.done()]
            return sum(pq.read_metadata(part, filesystem=self._filesystem).num_rows for part in parts)

    def scored(self, columns: list[str]) -> pa.Table:
        """Return columns of all rows of images that were scored."""
        parts = self.rows([*columns, "status"])
        return pa.concat_tables([rows.filter(pc.equal(rows["status"], SCORED)) for rows in parts])

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a file that is there, as a whole, once the block has ended well."""
        with self._errors():
            if self._folder is None:
                # Held back until it is whole: a stream into a store ends well whatever happens in its block.
                with tempfile.SpooledTemporaryFile(_HELD_BYTES) as held:
                    yield held
                    patiently(self.place, lambda: self._upload(held, name))
                return
            path = self._folder / name
            partial = path.with_name(_partial(path.name))
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)

    def _upload(self, file: IO[bytes], name: str) -> None:
        file.seek(0)
        with self._filesystem.open_output_stream(self._at(name)) as stream:
            shutil.copyfileobj(file, stream, _COPIED_BYTES)

    def holds(self, name: str) -> bool:
        """Tell whether a file is there."""
        with self._errors("read"):
            return bool(self._filesystem.get_file_info(self._at(name)).type == pafs.FileType.File)

    def clear(self) -> None:
        """Remove what a run wrote, and nothing else that somebody may keep there."""
        with self._errors():
            self._delete(SUCCESS)
            if self._filesystem.get_file_info(self._at(SCORES)).type == pafs.FileType.Directory:
                self._filesystem.delete_dir(self._at(SCORES))
            for name in (*_FILES, *map(_partial, (SUCCESS, RUN, *_FILES))):
                self._delete(name)
            # What says whose all this is, last: whoever is killed before it may come back.
            self._delete(RUN)

    def _delete(self, name: str) -> None:
        if self.holds(name):
            self._filesystem.delete_file(self._at(name))

    def _check_folder(self) -> None:
        if self._folder is None:
            return
        if self._folder.exists() and not self._folder.is_dir():
            raise OutputError(f"{self._folder} is a file. Choose a new folder")
        if self._folder.exists() and any(self._folder.iterdir()) and not (self._folder / MARK).exists():
            raise OutputError(f"{self._folder} holds files that dermaray did not write. Choose a new folder")
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._folder is None:
            # In an object store nobody can be kept out; two runs of one job would write the same there.
            yield
            return
        with self._errors():
            mark = (self._folder / MARK).open("a")
        with mark:
            try:
                with self._errors():
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OutputError as error:
                if isinstance(error.__cause__, BlockingIOError):
                    raise OutputError(f"another process is at work in {self.place}. Choose another folder") from None
                raise
            yield

    def _check_run(self, new: bool) -> None:
        known = self._read_run()
        difference = None if new or known is None else self._difference(known)
        self._stale = new or known is None or difference is not None
        if known is None:
            names = {info.base_name for info in self._files_in("")} - {MARK, *map(_partial, (RUN, *_FILES))}
            # Of a store nothing else is asked: a prefix may have other things below it, which stay.
            there = names if self._folder is not None else names & {SUCCESS, SCORES, *_FILES}
            # Killed in its first moment, it has nothing but that name.
            if there - {RUN}:
                raise OutputError(f"{self.place} holds an earlier result of another kind. Choose a new folder")
        elif difference is not None:
            raise self._refusal(difference)
        elif not self._stale:
            self._job = known

    def _difference(self, known: Mapping[str, Any]) -> str | None:
        """Return in what an earlier run was another one; None where it was this one, for all that is known by now."""
        for name, what in _DIFFERENCES.items():
            if known.get(name) != self._job[name]:
                return what.format(known.get(name))
        if self.holds(SUCCESS):
            self._inputs.wait()
        if self._inputs.ended and _INPUTS in known:
            same = known[_INPUTS] == self._inputs.digest
        else:
            # Whatever was scored has to be in this listing, at the same place.
            last = max(self.done(), default=None)
            same = last is None or (
                self._inputs.wait(last + 1) > last and self._digest_of(last) == self._inputs.digests[last]
            )
        return None if same else _OTHER_INPUTS

    def _refusal(self, difference: str) -> OutputError:
        what = "an earlier result" if self.holds(SUCCESS) else "a run that has not ended,"
        return OutputError(
            f"{self.place} holds {what} of {difference}. Choose a new folder, or add --new to replace it"
        )

    def _digest_of(self, shard: int) -> str | None:
        """Return what the file of a shard says of its listing."""
        path = self._at(f"{SCORES}/part-{shard:05}.parquet")
        with self._errors("read"):
            metadata = pq.read_metadata(path, filesystem=self._filesystem).metadata or {}
        digest = metadata.get(_DIGEST)
        return None if digest is None else bytes(digest).decode()

    def _read_run(self) -> dict[str, Any] | None:
        try:
            with self._filesystem.open_input_file(self._at(RUN)) as file:
                known = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return known if isinstance(known, dict) else None

    def _files_in(self, folder: str) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self._at(folder).rstrip("/"), allow_not_found=True)
        listed: list[pafs.FileInfo] = self._filesystem.get_file_info(selector)
        return listed

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextmanager
    def _errors(self, verb: str = "write to") -> Iterator[None]:
        try:
            yield
        except STORE_ERRORS as error:
            if self._folder is None and isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OutputError(
                    f"{tempfile.gettempdir()} is full, where a file for {self.place} is held until it is whole. "
                    "The environment variable TMPDIR names another folder"
                ) from error
            told = isinstance(error, OSError) and error.strerror
            reason = told or str(explained(self.place, error)).removeprefix(self.place).lstrip(": ")
            raise OutputError(f"cannot {verb} {self.place}: {reason}") from error


def _partial(name: str) -> str:
    return f".{name}.partial"
