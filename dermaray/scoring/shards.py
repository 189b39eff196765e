"""An input cut into shards: each becomes one file of rows, whole or not at all."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dermaray.data.members import MEMBER_SCHEMA, STREAMS
from dermaray.data.storage import stamp
from dermaray.data.streams import BLOCK_ROWS, blocks_of

SHARD_IMAGES = 16 * BLOCK_ROWS
"""Images of a shard, at most: few enough that little is scored again after a kill."""


def cut(listings: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut listings, rows of `MEMBER_SCHEMA`, into shards as they come; the same rows always into the same.

    What is many images in one row is a shard by itself, and comes before the images that wait for a shard to be full.
    """
    held = MEMBER_SCHEMA.empty_table()
    for members in listings:
        many = pc.is_in(members["kind"], value_set=pa.array(STREAMS)).to_numpy()
        edges = [0, *(np.flatnonzero(np.diff(many)) + 1).tolist(), len(many)]
        for start, stop in pairwise(edges):
            run = members.slice(start, stop - start)
            if start < stop and many[start]:
                yield from blocks_of(run, rows=1)
                continue
            held = pa.concat_tables([held, run])
            full = len(held) // SHARD_IMAGES * SHARD_IMAGES
            yield from blocks_of(held.slice(0, full), SHARD_IMAGES)
            held = held.slice(full)
    if len(held):
        yield held


def size_of(shard: pa.Table) -> int | None:
    """Return how many images a shard has, or None where only reading them will tell."""
    kind = shard["kind"][0].as_py()
    if kind == "tar_stream":
        return None
    return int(shard["size"][0].as_py() if kind == "table" else shard.num_rows)


class Chain:
    """SHA-256 digests of shards, each over its rows, the sizes and times of archives, and the digest before it."""

    def __init__(self) -> None:
        self._digest = ""
        # One archive may be many shards, and asking a store takes a while.
        self._stamp = lru_cache(1)(stamp)

    def __call__(self, shard: pa.Table) -> str:
        """Return the digest of the next shard.

        Raises:
            DataError: An archive cannot be asked for its size.
        """
        digest = hashlib.sha256(self._digest.encode())
        # Why a part of an input could not be listed, a store may say in other words each time.
        names = pc.if_else(pc.equal(shard["kind"], "lost"), pa.scalar(b""), shard["name"])
        for column in shard.set_column(shard.schema.get_field_index("name"), "name", names).columns:
            digest.update(repr(column.to_pylist()).encode("utf-8", "backslashreplace"))
        archived = shard.filter(pc.is_in(shard["kind"], value_set=pa.array(["zip", "tar", *STREAMS])))
        for archive in archived["archive"].unique().to_pylist():
            digest.update(self._stamp(archive).encode())
        self._digest = digest.hexdigest()
        return self._digest
