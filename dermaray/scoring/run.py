"""A run of bulk scoring: the shards that are not there yet, through one Ray Data pipeline."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from dermaray.models.artifact import Artifact
from dermaray.models.bulk import Batch, score_tasks
from dermaray.models.rows import score_rows, score_schema
from dermaray.scoring.ledger import Ledger
from dermaray.scoring.shards import size_of, tasks_of

_ORDER = ("task", "row")


def score_shards(
    shards: Sequence[pa.Table], artifact: Artifact, ledger: Ledger, actors: int, progress: Callable[[int], None]
) -> None:
    """Score the shards that the ledger lacks on the connected Ray cluster, and publish each as it is whole.

    Args:
        shards: What `dermaray.scoring.shards.cut` made of the input.
        artifact: The model; its folder must be readable from every node.
        ledger: Where rows go.
        actors: How many processes hold the model.
        progress: Called with the number of images scored since the last call.

    Raises:
        OutputError: The output cannot be written.
    """
    done = ledger.done()
    missing = [number for number in range(len(shards)) if number not in done]
    if not missing:
        return
    tasks = tasks_of(shards, missing)
    gathered = _Gathered(tasks, artifact)
    for batch in score_tasks(tasks, artifact, actors).iter_batches(batch_size=None, batch_format="numpy"):
        for number in gathered.add(batch):
            ledger.publish(number, gathered.take(number, shards[number]))
        progress(len(batch["row"]))
    # What held no image at all has had no last one.
    for number in missing:
        if number in gathered:
            ledger.publish(number, gathered.take(number, shards[number]))


class _Gathered:
    """Rows of shards that are not whole yet."""

    def __init__(self, tasks: Sequence[pa.Table], artifact: Artifact) -> None:
        self._artifact = artifact
        self._rows: dict[int, list[pa.Table]] = {}
        self._open: dict[int, int] = defaultdict(int)
        for task in tasks:
            number = task["shard"][0].as_py()
            self._rows[number] = []
            self._open[number] += 1

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def add(self, batch: Batch) -> list[int]:
        """Take a batch, and return the shards that are whole now."""
        rows = score_rows(batch, self._artifact)
        for name in _ORDER:
            rows = rows.append_column(name, pa.array(batch[name], pa.int32()))
        whole = []
        for number in np.unique(batch["shard"]).tolist():
            of_shard = batch["shard"] == number
            self._rows[number].append(rows.filter(pa.array(of_shard)))
            self._open[number] -= int(np.count_nonzero(batch["last"] & of_shard))
            if not self._open[number]:
                whole.append(number)
        return whole

    def take(self, number: int, shard: pa.Table) -> pa.Table:
        """Return the rows of a shard in the order of its inputs, and forget them."""
        parts = self._rows.pop(number)
        if parts:
            rows = pa.concat_tables(parts).sort_by([(name, "ascending") for name in _ORDER]).drop_columns(list(_ORDER))
        else:
            rows = score_schema(self._artifact).empty_table()
        expected = size_of(shard)
        if expected not in (None, rows.num_rows):
            raise AssertionError(f"shard {number} has {rows.num_rows} rows for {expected} images")
        return rows
