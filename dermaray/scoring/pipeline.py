"""Pieces through one Ray Data pipeline: read and decoded with a limit on time, and scored."""

import pickle
import time
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import pyarrow as pa
import ray.data

from dermaray.data.streams import sliced
from dermaray.errors import ArtifactError, DermarayError, ImageError
from dermaray.images.spec import InputSpec
from dermaray.models.artifact import Artifact
from dermaray.models.bulk import Actors, Batch, Score, batches_of, image_row, lost, scored
from dermaray.models.engines import EngineName
from dermaray.models.own_process import return_memory
from dermaray.models.predictor import ENGINE_BATCH
from dermaray.scoring.ahead import Ahead
from dermaray.scoring.pieces import BLOCK_BATCHES, PIECE_SCHEMA, Piece, images_in, is_streamed, name_at
from dermaray.scoring.pinning import pin_to_core

NOTHING = "nothing"
"""The `reason` of the one row of a piece without an image."""

STAGES = ("reading", "decoding", "scoring")
"""Columns of seconds: what an image took of each; they overlap, and those of scoring are shared out over a batch."""

FAILED = "failed"
"""The `reason` of a row that tells of an error for which nothing can be scored; an error that was raised in a process
would be taken for its loss. `image_id` is the class of the error, where it is one of dermaray's."""

_PACKED = "packed"
"""The one column of what a process gives at a time, in one row: Ray would cut rows, or join them with later ones that
may be lost."""

_LINE_SHARES = 3
"""Of a store a process fetches many objects at a time. On a slow line each of them takes longer than it would alone."""

_BLOCK_SECONDS = 2.0
"""How long a process keeps rows back to give them together; no more than this, and one batch, is lost with it."""


def score_pieces(
    pieces: Sequence[Piece], artifact: Artifact, actors: Actors, seconds: float, *, one_by_one: bool
) -> ray.data.Dataset:
    """Score the images of pieces, in any order; those of a piece whose process was lost are missing.

    Args:
        pieces: What to read.
        artifact: The model; its folder must be readable from every node.
        actors: What holds it.
        seconds: How long a single image may take to read and decode.
        one_by_one: Give a process its next piece when it is done with one, so that it is lost over that alone; with
            Keras, tasks read, of a piece each, in any case.

    Returns:
        A dataset for `batches_given`.
    """
    dataset = sliced([piece.table() for piece in pieces])
    # A process that dies takes one piece with it, not the pipeline.
    dataset.context.max_errored_blocks = -1
    # What hangs has a limit of its own.
    dataset.context.execution_no_progress_timeout_s = -1
    read = _Read(artifact.input_spec, seconds)
    if actors.engine == "keras":
        decoded = dataset.map_batches(read, batch_format="pyarrow", batch_size=None, max_retries=0)
        return scored(decoded, artifact, actors, _Telling, max_task_retries=0)
    # A block ends with its row.
    dataset.context.target_max_block_size = 1
    count = min(actors.count, len(pieces))
    return dataset.map_batches(
        _ReadAndScore,
        fn_constructor_args=(read, artifact, actors.engine, count >= ray.cluster_resources().get("CPU", 0)),
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1 if one_by_one else 2),
        num_cpus=1,
        max_task_retries=0,
    )


def batches_given(dataset: ray.data.Dataset) -> Iterator[Batch]:
    """Yield what comes of `score_pieces`, of one piece at a time.

    Yields:
        What `dermaray.models.bulk.score_stream` does, with the columns `shard`, `task` and `start` of its piece; `row`,
        which counts the images of a task; `last`, true for the last one of a piece; and `STAGES`.
    """
    for block in dataset.iter_batches(batch_size=None, batch_format="numpy"):
        yield from map(pickle.loads, block[_PACKED]) if _PACKED in block else [block]


def packed(batch: Batch) -> pa.Table:
    """Return a batch as one row, for Ray."""
    return pa.table({_PACKED: pa.array([pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)], pa.large_binary())})


class _Read:
    """Read and decode the images of a piece, ahead of whoever takes them, each within its time."""

    def __init__(self, spec: InputSpec, seconds: float) -> None:
        self._spec, self._seconds = spec, seconds

    def __call__(self, table: pa.Table) -> Iterator[Batch]:
        try:
            yield from batches_of(self._numbered(table))
        except DermarayError as error:
            yield from batches_of([{**_start(table), **self._nobody(FAILED, error), "row": -1, "last": False}])

    def _numbered(self, table: pa.Table) -> Iterator[Batch]:
        piece = _start(table)
        number, rows = piece["start"], self._rows(table)
        following = next(rows, None)
        if following is None:
            yield {**piece, **self._nobody(NOTHING), "row": -1, "last": True}
        while following is not None:
            row, following = following, next(rows, None)
            yield {**piece, "row": number, "last": following is None, **row}
            number += 1

    def _rows(self, table: pa.Table) -> Iterator[Batch]:
        position, stop = table["start"][0].as_py(), table["stop"][0].as_py()
        while stop is None or position < stop:
            ahead, to_pass = Ahead(self._decoded(table, position), ENGINE_BATCH), position
            try:
                for row in ahead.take(self._seconds * _shares(table)):
                    if row is None:
                        to_pass -= 1
                        continue
                    yield row
                    position += 1
                return
            except TimeoutError:
                if is_streamed(table) and to_pass:
                    # It cannot even be passed over.
                    yield from self._rest(table, position)
                    return
                yield self._late(table, position, "it")
                position += 1
            finally:
                ahead.give_up()

    def _decoded(self, table: pa.Table, position: int) -> Iterator[Batch | None]:
        began = time.perf_counter()
        for member in images_in(table, position):
            if member is None:
                yield None
                continue
            read = time.perf_counter()
            row = image_row(member, self._spec)
            yield {**row, "reading": read - began, "decoding": time.perf_counter() - read}
            began = time.perf_counter()

    def _rest(self, table: pa.Table, position: int) -> Iterator[Batch]:
        """Yield the rows of what cannot be read any more: one for each image of a table, one for all of an archive."""
        stop = table["stop"][0].as_py()
        known = table["kind"][0].as_py() == "table"
        for number in range(position, stop if known else position + 1):
            yield self._late(table, number, "it" if known else "what follows in the archive")

    def _late(self, table: pa.Table, position: int, what: str) -> Batch:
        """Return the row of an image that took too long."""
        image_id, uri = name_at(table, position, table["start"][0].as_py())
        seconds = self._seconds * _shares(table)
        error = ImageError("timed_out", f"{what} could not be read and decoded in {seconds:g} s")
        took = {"reading": seconds, "decoding": 0.0}
        return {"image_id": image_id, "uri": uri, "sha256": "", **lost(error, self._spec), **took}

    def _nobody(self, reason: str, error: Exception | None = None) -> Batch:
        """Return a row that is no image's."""
        nothing = lost(ImageError("unreadable", str(error or "")), self._spec)
        told = {"image_id": type(error).__name__ if error else "", "reason": reason}
        return {"uri": "", "sha256": "", **nothing, **told, "reading": 0.0, "decoding": 0.0}


def _shares(table: pa.Table) -> int:
    """Return by how much more time an image may take, since others share the line that it comes over."""
    return _LINE_SHARES if "object" in table["kind"].to_pylist() else 1


def _start(table: pa.Table) -> Batch:
    """Return which piece a table is."""
    return {name: table[name][0].as_py() for name in PIECE_SCHEMA.names if name != "stop"}


class _Telling(Score):
    """Tell of a model that cannot score in a row: an error would be taken for a process that was lost."""

    def __init__(self, artifact: Artifact, engine: EngineName) -> None:
        self._error: Exception | None = None
        try:
            super().__init__(artifact, engine)
        # Whatever it is: a constructor that fails is tried again without end, and its error is not passed on.
        except Exception as error:
            self._error = error

    def __call__(self, batch: Batch) -> Batch:
        if self._error is not None:
            return _failed(batch, self._error)
        began, count = time.perf_counter(), len(batch["row"])
        try:
            scored = super().__call__(batch)
        except ArtifactError as error:
            return _failed(batch, error)
        return scored | {"scoring": np.full(count, (time.perf_counter() - began) / count)}


def _failed(batch: Batch, error: Exception) -> Batch:
    """Return a batch that says why none of it, and of nothing else, can be scored."""
    kind = type(error).__name__ if isinstance(error, DermarayError) else ""
    message = str(error) if kind else f"a process that scores cannot start: {type(error).__name__}: {error}"
    told = {"reason": FAILED, "image_id": kind, "message": message}
    kept = {name: values for name, values in batch.items() if name != "image"}
    return kept | {name: np.full(len(batch["row"]), value) for name, value in told.items()}


class _ReadAndScore:
    """Hold a model, and read, decode and score pieces: two threads, one of which runs the network.

    Args:
        read: What reads and decodes.
        artifact: The model.
        engine: What runs it.
        pinned: Whether there are so many of these that each may have a core.
    """

    def __init__(self, read: _Read, artifact: Artifact, engine: EngineName, pinned: bool) -> None:
        self._core = pin_to_core() if pinned else None
        return_memory()
        cv2.setNumThreads(1)
        self._read, self._score = read, _Telling(artifact, engine)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        # Ray takes generators, and no other iterators.
        yield from map(packed, _joined(map(self._score, self._read(table))))


def _joined(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Join batches: each that is given by itself costs Ray and the driver as much as the rows of many images."""
    block: list[Batch] = []
    began = time.monotonic()
    for batch in batches:
        block.append(batch)
        if len(block) == BLOCK_BATCHES or time.monotonic() - began > _BLOCK_SECONDS:
            yield _concatenated(block)
            block, began = [], time.monotonic()
    if block:
        yield _concatenated(block)


def _concatenated(block: Sequence[Batch]) -> Batch:
    """Return batches as one, with the columns that all of them have: one that could not be scored lacks some."""
    names = [name for name in block[0] if all(name in batch for batch in block)]
    return {name: np.concatenate([batch[name] for batch in block]) for name in names}
