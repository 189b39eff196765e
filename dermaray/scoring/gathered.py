"""Rows as they come, gathered into the shards that they belong to."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dermaray.errors import ImageError
from dermaray.models.artifact import Artifact
from dermaray.models.bulk import Batch
from dermaray.models.rows import dead_letter, score_rows, score_schema
from dermaray.scoring.pieces import Piece
from dermaray.scoring.pipeline import NOTHING, STAGES
from dermaray.scoring.shards import size_of

_ORDER = ("task", "row")


class _Key(NamedTuple):
    """Which piece it is: no two that are read at a time begin at the same image."""

    shard: int
    task: int
    start: int


class Gathered:
    """Rows of shards that are not whole yet.

    Args:
        shards: All that are known; there may be more of them at any time.
        artifact: What scores them.

    Attributes:
        count: Images that have their rows.
        given_up: Those of them whose rows no process has given.
        seconds: What they took, by stage, of all processes together.
    """

    def __init__(self, shards: Sequence[pa.Table], artifact: Artifact) -> None:
        self.count = 0
        self.given_up = 0
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._shards, self._artifact = shards, artifact
        self._rows: dict[int, list[pa.Table]] = {}
        self._missing: Counter[int] = Counter()
        self._whole: list[int] = []
        # Of the pieces that are being read, what has come, and how many images they have where their end has come.
        self._parts: dict[_Key, list[pa.Table]] = defaultdict(list)
        self._sizes: dict[_Key, int] = {}

    def expect(self, pieces: Sequence[Piece]) -> None:
        """Take what is to be read of shards: all of each."""
        self._rows |= {piece.shard: [] for piece in pieces}
        self._missing.update(piece.shard for piece in pieces)

    def add(self, batch: Batch) -> None:
        """Take a batch of `score_pieces`, all of one piece."""
        key = _Key(*(int(batch[name][0]) for name in _Key._fields))
        parts = self._parts[key]
        if batch["reason"][0] == NOTHING:
            self._sizes[key] = 0
        else:
            parts.append(_placed(score_rows(batch, self._artifact), batch["task"], batch["row"]))
            self.count += len(batch["row"])
            for stage in STAGES:
                self.seconds[stage] += float(batch[stage].sum())
            if batch["last"].any():
                self._sizes[key] = int(batch["row"].max()) + 1 - key.start
        if self._sizes.get(key) == sum(len(rows) for rows in parts):
            self._rows[key.shard] += self._parts.pop(key)
            self._settle(key.shard)

    def whole(self) -> list[int]:
        """Return the shards that miss nothing and have not been told of."""
        whole, self._whole = self._whole, []
        return whole

    def left_of(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return what has to be read again of pieces that have been read, and forget what came in bits of it."""
        left: list[Piece] = []
        for piece in pieces:
            key = _Key(piece.shard, piece.task, piece.start)
            if key in self._sizes and key not in self._parts:
                continue
            rows = self._first_of(key)
            self._rows[piece.shard].append(rows)
            if piece.hopeless and not len(rows):
                self._rows[piece.shard].append(self._killer(piece))
                self._settle(piece.shard)
                self.count += 1
                self.given_up += 1
            else:
                again = piece.again(len(rows))
                self._missing[piece.shard] += len(again) - 1
                left += again
        self._parts.clear()
        self._sizes.clear()
        return left

    def take(self, number: int) -> pa.Table:
        """Return the rows of a shard that is whole, in the order of its inputs, and forget them."""
        rows = pa.concat_tables([*self._rows.pop(number), self._none()])
        rows = rows.sort_by([(name, "ascending") for name in _ORDER])
        places = np.stack([rows[name].to_numpy() for name in _ORDER])
        expected = size_of(self._shards[number])
        if expected not in (None, len(rows)) or (np.diff(places) == 0).all(axis=0).any():
            raise AssertionError(f"shard {number} has {len(rows)} rows, some twice perhaps, for {expected} images")
        return rows.drop_columns(list(_ORDER))

    def _settle(self, shard: int) -> None:
        self._missing[shard] -= 1
        if not self._missing[shard]:
            self._whole.append(shard)

    def _first_of(self, key: _Key) -> pa.Table:
        """Return the rows of a piece from its start to the first that is missing."""
        rows = pa.concat_tables([*self._parts[key], self._none()]).sort_by("row")
        places = rows["row"].to_numpy()
        count = int(np.cumprod(places == key.start + np.arange(len(places))).sum())
        self.count -= len(rows) - count
        return rows.slice(0, count)

    def _killer(self, piece: Piece) -> pa.Table:
        """Return the row of an image, or of the rest of an archive, over which processes are lost."""
        what = "it" if piece.stop else "it and what follows in the archive"
        message = f"{piece.tries + 1} processes died over {what}, one after the other"
        error = ImageError("crashed", message)
        rows = dead_letter(*piece.first(), error, self._artifact)
        return _placed(rows, [piece.task], [piece.start])

    def _none(self) -> pa.Table:
        return _placed(score_schema(self._artifact).empty_table(), [], [])


def _placed(rows: pa.Table, tasks: Sequence[int], numbers: Sequence[int]) -> pa.Table:
    """Add the columns that rows are ordered by."""
    for name, values in zip(_ORDER, (tasks, numbers), strict=True):
        rows = rows.append_column(name, pa.array(values, pa.int32()))
    return rows
