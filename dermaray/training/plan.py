"""Which image is seen at which step: fixed before training starts, the same for any number of workers.

A plan is a table of integers over all epochs. Each global batch is a run of its rows; every worker takes its own equal
part of every global batch. So N workers see, step by step, just what one worker sees, and take equally many steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dermaray.errors import ConfigError

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Plan:
    """Rows to visit, in order.

    Attributes:
        row: Positions in the image table, int32 [steps * global batch size].
        epoch: The epoch that each visit belongs to, int32.
        draw: How often the image came before in its epoch, int32.
        weight: 1, or 0 for a row that only fills the last batch, float32.
        global_batch_size: Rows per step.
    """

    row: IntArray
    epoch: IntArray
    draw: IntArray
    weight: npt.NDArray[np.float32]
    global_batch_size: int

    @property
    def steps(self) -> int:
        """Steps over all epochs."""
        return len(self.row) // self.global_batch_size

    def shard(self, rank: int, world_size: int) -> pa.Table:
        """Return one worker's part of every global batch as columns `row`, `epoch`, `draw`, `weight`."""
        columns = {"row": self.row, "epoch": self.epoch, "draw": self.draw, "weight": self.weight}
        return pa.table({name: self._part(values, rank, world_size) for name, values in columns.items()})

    def _part(self, values: npt.NDArray[np.generic], rank: int, world_size: int) -> npt.NDArray[np.generic]:
        return np.ascontiguousarray(values.reshape(self.steps, world_size, -1)[:, rank].reshape(-1))


def training_plan(
    labels: Sequence[int] | IntArray,
    epochs: int,
    global_batch_size: int,
    balance: Literal["none", "equal"],
    seed: int,
) -> Plan:
    """Plan the training images of every epoch, shuffled anew in each.

    A remainder smaller than a global batch is left out, other images in every epoch.

    Args:
        labels: The class index of every training image.
        epochs: How many.
        global_batch_size: Rows per step over all workers.
        balance: See `DataConfig.balance`.
        seed: Decides the order.

    Raises:
        ConfigError: There are fewer images than one batch takes.
    """
    targets = np.asarray(labels)
    steps = len(targets) // global_batch_size
    if steps == 0:
        raise ConfigError(
            f"training.global_batch_size must be at most the number of training images, {len(targets)}. "
            f"Received: {global_batch_size}"
        )
    rng = np.random.default_rng(seed)
    per_epoch = [_order(targets, steps * global_batch_size, balance, rng) for _ in range(epochs)]
    return Plan(
        np.concatenate(per_epoch).astype(np.int32),
        np.repeat(np.arange(epochs, dtype=np.int32), steps * global_batch_size),
        np.concatenate([_occurrence(rows) for rows in per_epoch]),
        np.ones(epochs * steps * global_batch_size, np.float32),
        global_batch_size,
    )


def validation_plan(images: int, global_batch_size: int) -> Plan:
    """Plan one pass over all images; the last batch is filled with rows of weight 0."""
    size = -(-images // global_batch_size) * global_batch_size
    row = np.arange(size, dtype=np.int32)
    zeros = np.zeros(size, np.int32)
    return Plan(np.where(row < images, row, 0), zeros, zeros, (row < images).astype(np.float32), global_batch_size)


def _order(labels: npt.NDArray[np.int_], size: int, balance: str, rng: np.random.Generator) -> IntArray:
    """Return the rows of one epoch, in order."""
    if balance == "none":
        return rng.permutation(len(labels))[:size].astype(np.int32)
    classes = np.unique(labels)
    # Every class gets the same share; what does not divide goes to classes drawn by lot.
    share = np.full(len(classes), size // len(classes))
    share[rng.permutation(len(classes))[: size % len(classes)]] += 1
    rows = [_draw(np.flatnonzero(labels == c), int(n), rng) for c, n in zip(classes, share, strict=True)]
    return rng.permutation(np.concatenate(rows)).astype(np.int32)


def _draw(members: npt.NDArray[np.int_], size: int, rng: np.random.Generator) -> npt.NDArray[np.int_]:
    """Draw from a class: everyone equally often, and what remains without repetition."""
    whole, rest = divmod(size, len(members))
    return np.concatenate([np.tile(members, whole), rng.permutation(members)[:rest]])


def _occurrence(rows: IntArray) -> IntArray:
    """Number the repetitions of every value: [5, 7, 5] -> [0, 0, 1]."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    within = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    result = np.empty(len(rows), np.int32)
    result[order] = within
    return result
