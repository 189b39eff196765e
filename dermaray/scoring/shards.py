"""An input cut into shards: each becomes one file of rows, whole or not at all."""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from dermaray.data.members import STREAMS
from dermaray.data.storage import stamp
from dermaray.data.streams import BLOCK_ROWS, blocks_of

SHARD_IMAGES = 16 * BLOCK_ROWS
"""Images of a shard, at most: few enough that little is scored again after a kill."""


def cut(members: pa.Table) -> list[pa.Table]:
    """Cut a listing, rows of `MEMBER_SCHEMA`, into shards; the same listing always into the same."""
    many = pc.is_in(members["kind"], value_set=pa.array(STREAMS))
    return blocks_of(members.filter(pc.invert(many)), SHARD_IMAGES) + blocks_of(members.filter(many), rows=1)


def size_of(shard: pa.Table) -> int | None:
    """Return how many images a shard has, or None where only reading them will tell."""
    kind = shard["kind"][0].as_py()
    if kind == "tar_stream":
        return None
    return int(shard["size"][0].as_py() if kind == "table" else shard.num_rows)


def listing_digest(members: pa.Table) -> str:
    """Return a SHA-256 over a listing, and over the sizes and times of the archives in it."""
    digest = hashlib.sha256()
    for row in members.to_batches(max_chunksize=65_536):
        for column in row.columns:
            digest.update(repr(column.to_pylist()).encode("utf-8", "backslashreplace"))
    files = members.filter(pc.is_in(members["kind"], value_set=pa.array(["zip", "tar", *STREAMS])))
    for archive in files["archive"].unique().to_pylist():
        digest.update(stamp(archive).encode())
    return digest.hexdigest()
