"""The folder that a run of bulk scoring writes, here or in an object store, and what it says of the run.

| file | what it is |
| --- | --- |
| `run.json` | which run this is: digests of the inputs and of the model, the number of shards |
| `scores.parquet/part-NNNNN.parquet` | the rows of a shard, there as a whole or not at all |
| `progress.json` | how far the run is, for whoever watches it |
| `summary.json`, `scores.csv` | written when all shards are there |
| `_SUCCESS` | empty; there when every input has its row |

A run that was killed is gone on with from the shards that are there. Only the driver writes, and each file once.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dermaray.data.storage import STORE_ERRORS, absolute, explained, local_path, locate
from dermaray.errors import OutputError
from dermaray.files import MARK

RUN, SCORES, PROGRESS, SUMMARY, TABLE, SUCCESS = (
    *("run.json", "scores.parquet", "progress.json", "summary.json"),
    *("scores.csv", "_SUCCESS"),
)
_FORMAT_VERSION = 1
_PART = re.compile(r"part-(\d{5,})\.parquet")


class Ledger:
    """What a run has written so far.

    Attributes:
        place: A local path, or a URI.
    """

    def __init__(self, place: str) -> None:
        self.place = absolute(place)
        self._folder = local_path(self.place)
        self._filesystem, self._path = locate(self.place)

    @classmethod
    @contextmanager
    def open(cls, place: str, job: Mapping[str, Any], *, new: bool) -> "Iterator[Ledger]":
        """Yield the ledger of a run, new or as an earlier process left it; no other process of this machine has it.

        Args:
            place: The folder, or a prefix in an object store.
            job: What the run is, as JSON values: `inputs`, `model` and `shards`.
            new: Drop what is there of another run.

        Raises:
            OutputError: The place cannot be written, belongs to another run, or holds what is not dermaray's.
        """
        ledger = cls(place)
        with ledger._errors():
            ledger._prepare()
        with ledger._locked():
            with ledger._errors():
                ledger._begin({"format_version": _FORMAT_VERSION, **job}, new)
            yield ledger

    @property
    def complete(self) -> bool:
        """Whether every input has its row."""
        return self._is_there(SUCCESS)

    def done(self) -> set[int]:
        """Return the numbers of the shards whose rows are there."""
        matches = [_PART.fullmatch(name) for name in self._names(SCORES)]
        return {int(match[1]) for match in matches if match}

    def publish(self, shard: int, rows: pa.Table) -> None:
        """Write the rows of a shard."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink)
        self._put(f"{SCORES}/part-{shard:05}.parquet", sink.getvalue())

    def tell(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        self._put(name, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")

    def rows(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield columns of the rows of each shard, in order."""
        for shard in sorted(self.done()):
            yield pq.read_table(
                self._at(f"{SCORES}/part-{shard:05}.parquet"), columns=columns, filesystem=self._filesystem
            )

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a file that is there once the block has ended well."""
        partial = name if self._folder is None else f".{name}.partial"
        with self._errors():
            with self._filesystem.open_output_stream(self._at(partial)) as file:
                yield file
            if self._folder is not None:
                os.replace(self._at(partial), self._at(name))

    def succeed(self) -> None:
        """Say that every input has its row."""
        self._put(SUCCESS, b"")

    def clear(self) -> None:
        """Remove what a run wrote, and nothing else that somebody may keep there."""
        # First what says that there is something.
        for name in (SUCCESS, RUN, PROGRESS, SUMMARY, TABLE):
            if self._is_there(name):
                self._filesystem.delete_file(self._at(name))
        if self._names(SCORES):
            self._filesystem.delete_dir(self._at(SCORES))

    def _prepare(self) -> None:
        if self._folder is None:
            return
        if self._folder.exists() and not self._folder.is_dir():
            raise OutputError(f"{self._folder} is a file. Choose a new folder")
        if self._folder.exists() and any(self._folder.iterdir()) and not (self._folder / MARK).exists():
            raise OutputError(f"{self._folder} holds files that dermaray did not write. Choose a new folder")
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # In an object store nobody can be kept out; two runs of one job would write the same there.
        with nullcontext() if self._folder is None else (self._folder / MARK).open("a") as mark:
            try:
                if mark is not None:
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"another process is at work in {self.place}. Choose another folder") from None
            yield

    def _begin(self, job: dict[str, Any], new: bool) -> None:
        known = self._read_run()
        if known == job and not new:
            return
        others = self._folder is not None and {path.name for path in self._folder.iterdir()} - {MARK, *_OURS}
        if known is None and others:
            raise OutputError(f"{self.place} holds an earlier result of another kind. Choose a new folder")
        if known is not None and not new:
            what = "an earlier result" if self.complete else "a run that has not ended,"
            raise OutputError(
                f"{self.place} holds {what} of {_difference(known, job)}. Choose a new folder, or add --new to "
                "replace it"
            )
        self.clear()
        self._filesystem.create_dir(self._at(SCORES))
        self.tell(RUN, job)

    def _read_run(self) -> dict[str, Any] | None:
        try:
            with self._filesystem.open_input_file(self._at(RUN)) as file:
                known = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return known if isinstance(known, dict) else None

    def _put(self, name: str, data: bytes | pa.Buffer) -> None:
        with self._errors():
            if self._folder is None:
                # An object is there once it is whole.
                with self._filesystem.open_output_stream(self._at(name)) as file:
                    file.write(data)
                return
            path = self._folder / name
            partial = path.with_name(f".{path.name}.partial")
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except STORE_ERRORS as error:
            told = isinstance(error, OSError) and error.strerror
            reason = told or str(explained(self.place, error)).removeprefix(self.place).lstrip(": ")
            raise OutputError(f"cannot write to {self.place}: {reason}") from error

    def _names(self, folder: str) -> list[str]:
        selector = pafs.FileSelector(self._at(folder), allow_not_found=True)
        return [info.base_name for info in self._filesystem.get_file_info(selector) if info.is_file]

    def _is_there(self, name: str) -> bool:
        return bool(self._filesystem.get_file_info(self._at(name)).type == pafs.FileType.File)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"


_OURS = {RUN, SCORES, PROGRESS, SUMMARY, TABLE, SUCCESS} | {
    f".{name}.partial" for name in (RUN, PROGRESS, SUMMARY, TABLE)
}


def _difference(known: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    if known.get("model") != job["model"]:
        return "another model"
    if known.get("inputs") != job["inputs"]:
        return "other inputs, or of these before they changed"
    return "another version of dermaray"
