"""The folder that a run of bulk scoring writes, here or in an object store, and what it says of the run.

| file | what it is |
| --- | --- |
| `run.json` | which run this is: digests of the inputs and of the model, the engine, the number of shards |
| `scores.parquet/part-NNNNN.parquet` | the rows of a shard, there as a whole or not at all |
| `progress.json` | how far the run is, for whoever watches it |
| `summary.json`, `scores.csv`, `submission.csv`, `top.html` | written when all shards are there |
| `_SUCCESS` | empty; there when every input has its row |

A run that was killed is gone on with from the shards that are there. Only the driver writes, and each file once.
"""

import fcntl
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dermaray.data.storage import STORE_ERRORS, absolute, explained, local_path, locate
from dermaray.errors import OutputError
from dermaray.files import MARK
from dermaray.models.rows import SCORED

RUN, SCORES, PROGRESS, SUMMARY, TABLE, SUBMISSION, GALLERY, SUCCESS = (
    *("run.json", "scores.parquet", "progress.json", "summary.json"),
    *("scores.csv", "submission.csv", "top.html", "_SUCCESS"),
)
_FILES = (PROGRESS, SUMMARY, TABLE, SUBMISSION, GALLERY)
_FORMAT_VERSION = 2
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
        self._job: dict[str, Any] = {}
        self._stale = False

    @classmethod
    @contextmanager
    def open(cls, place: str, job: Mapping[str, Any], *, new: bool) -> "Iterator[Ledger]":
        """Yield the ledger of a run as an earlier process left it; no other process of this machine has it.

        Nothing is removed before `begin`.

        Args:
            place: The folder, or a prefix in an object store.
            job: What the run is, as JSON values: `inputs`, `model`, `engine` and `shards`.
            new: Drop what is there of any run.

        Raises:
            OutputError: The place cannot be written, belongs to another run, or holds what is not dermaray's.
        """
        ledger = cls(place)
        ledger._job = {"format_version": _FORMAT_VERSION, **job}
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
            self._filesystem.create_dir(self._at(SCORES))

    def done(self) -> set[int]:
        """Return the numbers of the shards whose rows are there."""
        if self._stale:
            return set()
        with self._errors("read"):
            # A store may have an empty object where an upload was cut short.
            files = [info for info in self._listed(SCORES) if info.is_file and info.size]
        return {int(match[1]) for info in files if (match := _PART.fullmatch(info.base_name))}

    def publish(self, shard: int, rows: pa.Table) -> None:
        """Write the rows of a shard."""
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
                held = io.BytesIO()
                yield held
                with self._filesystem.open_output_stream(self._at(name)) as stream:
                    stream.write(held.getbuffer())
                return
            path = self._folder / name
            partial = path.with_name(_partial(path.name))
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)

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
        self._stale = new or known != self._job
        if known is None:
            names = {info.base_name for info in self._listed("")} - {MARK, *map(_partial, (RUN, *_FILES))}
            # Of a store nothing else is asked: a prefix may have other things below it, which stay.
            there = names if self._folder is not None else names & {SUCCESS, SCORES, *_FILES}
            # Killed in its first moment, it has nothing but that name.
            if there - {RUN}:
                raise OutputError(f"{self.place} holds an earlier result of another kind. Choose a new folder")
        elif self._stale and not new:
            what = "an earlier result" if self.holds(SUCCESS) else "a run that has not ended,"
            raise OutputError(
                f"{self.place} holds {what} of {_difference(known, self._job)}. Choose a new folder, or add --new to "
                "replace it"
            )

    def _read_run(self) -> dict[str, Any] | None:
        try:
            with self._filesystem.open_input_file(self._at(RUN)) as file:
                known = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return known if isinstance(known, dict) else None

    def _listed(self, folder: str) -> list[pafs.FileInfo]:
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
            told = isinstance(error, OSError) and error.strerror
            reason = told or str(explained(self.place, error)).removeprefix(self.place).lstrip(": ")
            raise OutputError(f"cannot {verb} {self.place}: {reason}") from error


def _partial(name: str) -> str:
    return f".{name}.partial"


def _difference(known: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    if known.get("format_version") != job["format_version"]:
        return "another version of dermaray"
    if known.get("model") != job["model"]:
        return "another model"
    if known.get("engine") != job["engine"]:
        return f"another engine, {known.get('engine')}"
    if known.get("inputs") != job["inputs"]:
        return "other inputs, or of these before they changed"
    return "another version of dermaray"
