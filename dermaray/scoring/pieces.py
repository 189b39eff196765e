"""What single tasks read of shards, and what is read again where a process was lost over it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from dermaray.data.members import STREAMS, Member, member_row, name_member, read_members
from dermaray.data.streams import blocks_of
from dermaray.models.predictor import ENGINE_BATCH

TRIES = 3
"""How many processes are lost over an image before it is left alone, at least."""

OPEN_TRIES = 10
"""How many are lost, each a little further on, over an archive of unknown length before its rest is left alone."""

BLOCK_BATCHES = 4
"""Batches of the network whose rows a process gives at a time, at most."""

AHEAD = (BLOCK_BATCHES + 4) * ENGINE_BATCH
"""Images within which the one is over which a process was lost that had given none: it reads ahead of its network, and
keeps rows until they are a block."""

PIECE_SCHEMA = pa.schema([(name, pa.int32()) for name in ("shard", "task", "start", "stop")])
"""What a task's rows have beside those of `MEMBER_SCHEMA`; `stop` is null for the end."""


@dataclass(frozen=True)
class Piece:
    """Images that one task reads.

    Attributes:
        shard: The number of their shard.
        task: Counts the parts of a shard.
        start: The first image of the part that is read.
        stop: The first one that is not; None for the end, where only reading tells how many there are.
        members: All of the part, rows of `MEMBER_SCHEMA`.
        tries: How many processes were lost over these images, of those that began with them; of a piece that was cut,
            counted from when it came down to a batch.
    """

    shard: int
    task: int
    start: int
    stop: int | None
    members: pa.Table
    tries: int = 0

    @property
    def hopeless(self) -> bool:
        """Whether one more loss tells enough: this is one image, or the rest of an archive that cannot be read."""
        size = self._size
        return self.tries + 1 >= (OPEN_TRIES if size is None else TRIES) and size in (None, 1)

    def holds(self, number: int) -> bool:
        """Tell whether an image of the part is one of these."""
        return self.start <= number and (self.stop is None or number < self.stop)

    def table(self) -> pa.Table:
        """Return the rows that `images_in` takes."""
        # A process is given no more of a part than it reads, but for what can only be read from its start.
        members = self.members if is_streamed(self.members) else self.members.slice(self.start, self._size)
        for field in PIECE_SCHEMA:
            values = pa.array([getattr(self, field.name)] * members.num_rows, field.type)
            members = members.append_column(field, values)
        return members

    def first(self) -> tuple[str, str]:
        """Return the `image_id` and the `uri` of the first image, without reading it."""
        return name_at(self.members, self.start, 0)

    def again(self, count: int) -> list["Piece"]:
        """Return what to read after the process was lost that had given the first `count` images.

        Nobody knows which of the others it was lost over, if over any: they are read in halves, down to a batch, which
        is read once more as it is, and in halves from then on.
        """
        if count:
            return [replace(self, start=self.start + count, tries=0)]
        size, tries = self._size, self.tries
        if size is None:
            # Whoever reads the rest passes over what is before it, so that only its own images can do harm.
            cut = self.start + AHEAD
            return [replace(self, stop=cut, tries=0), replace(self, start=cut, tries=tries + 1)]
        if size > ENGINE_BATCH:
            cut = self.start + max(ENGINE_BATCH, size // 2 // ENGINE_BATCH * ENGINE_BATCH)
        elif size > 1 and tries:
            cut = self.start + size // 2
        else:
            return [replace(self, tries=tries + 1)]
        return [replace(self, stop=cut), replace(self, start=cut)]

    @property
    def _size(self) -> int | None:
        return None if self.stop is None else self.stop - self.start


def pieces_of(shards: Sequence[pa.Table], numbers: Sequence[int]) -> list[Piece]:
    """Return what single tasks read of the shards of these numbers."""
    return [
        Piece(number, task, 0, _length(part), part)
        for number in numbers
        for task, part in enumerate(blocks_of(shards[number]))
    ]


def images_in(table: pa.Table, position: int) -> Iterator[Member | None]:
    """Read the images of a piece's `table` from one of them on; None for each that is passed over on the way there."""
    start, stop = table["start"][0].as_py(), table["stop"][0].as_py()
    if not is_streamed(table):
        yield from read_members(table.slice(position - start))
        return
    for number, member in enumerate(read_members(table)):
        if number == stop:
            return
        yield member if number >= position else None


def name_at(members: pa.Table, number: int, begin: int) -> tuple[str, str]:
    """Return the `image_id` and the `uri` of an image, without reading it.

    Args:
        members: A part, or what is read of it.
        number: Counts the images of the part.
        begin: That of the first row, where images have rows of their own.
    """
    found = member_row(members, 0 if is_streamed(members) else number - begin)
    image_id, uri = name_member(found)
    if not is_streamed(members):
        return image_id, uri
    # A table counts its own rows; a tar's name of the image is known to those alone who read it.
    number += found.offset
    return f"{image_id}-{number}", f"{uri}::{number}"


def is_streamed(members: pa.Table) -> bool:
    """Tell whether images of a part have no rows of their own."""
    return members["kind"][0].as_py() in STREAMS


def _length(part: pa.Table) -> int | None:
    """Return how many images a part has; None where only reading tells."""
    if part["kind"][0].as_py() == "table":
        return int(part["size"][0].as_py())
    return None if is_streamed(part) else part.num_rows
