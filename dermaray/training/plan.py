"""Which image is seen at which step: fixed before training starts, the same for any number of workers.

A plan is a table of integers over all epochs. Each global batch is a run of its rows; every worker takes its own equal
part of every global batch. So N workers see, step by step, just what one worker sees, and take equally many steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dermaray.config import Balance, ClassWeights, PerClass
from dermaray.errors import ConfigError

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Plan:
    """Rows to visit, in order.

    Attributes:
        row: Positions in the image table, int32 [steps * global batch size].
        epoch: The epoch that each visit belongs to, int32.
        draw: How often the image came before in its epoch, int32.
        weight: What the row counts in the loss: 1, or its class's weight; 0 for a row that only fills the last batch,
            float32.
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

    def between(self, start: int, stop: int) -> "Plan":
        """Return the steps from one on up to another, which is not among them."""
        return self._of_rows(np.s_[start * self.global_batch_size : stop * self.global_batch_size])

    def repeated(self, times: int) -> "Plan":
        """Return all steps so many times over."""
        return self._of_rows(np.tile(np.arange(len(self.row)), times))

    def shard(self, rank: int, world_size: int) -> pa.Table:
        """Return one worker's part of every global batch as columns `row`, `epoch`, `draw`, `weight`."""
        columns = {"row": self.row, "epoch": self.epoch, "draw": self.draw, "weight": self.weight}
        return pa.table({name: self._part(values, rank, world_size) for name, values in columns.items()})

    def _of_rows(self, rows: slice | npt.NDArray[np.int_]) -> "Plan":
        return Plan(self.row[rows], self.epoch[rows], self.draw[rows], self.weight[rows], self.global_batch_size)

    def _part(self, values: npt.NDArray[np.generic], rank: int, world_size: int) -> npt.NDArray[np.generic]:
        return np.ascontiguousarray(values.reshape(self.steps, world_size, -1)[:, rank].reshape(-1))


def training_plan(
    labels: Sequence[int] | IntArray,
    epochs: int,
    global_batch_size: int,
    balance: Balance,
    seed: int,
) -> Plan:
    """Plan the training images of every epoch, drawn and shuffled anew in each.

    A remainder smaller than a global batch is left out, other images in every epoch; where classes are balanced, what
    is left keeps their shares, to within one row.

    Args:
        labels: The class index of every training image.
        epochs: How many.
        global_batch_size: Rows per step over all workers.
        balance: See `DataConfig.balance`. A class without a training image cannot be drawn.
        seed: Decides what is drawn, and the order.

    Returns:
        The plan, with weights of 1.

    Raises:
        ConfigError: An epoch has fewer rows than one batch takes.
    """
    targets = np.asarray(labels)
    steps = _epoch_rows(targets, global_batch_size, balance) // global_batch_size
    rng = np.random.default_rng(seed)
    per_epoch = [_order(targets, steps * global_batch_size, balance, rng) for _ in range(epochs)]
    return Plan(
        np.concatenate(per_epoch).astype(np.int32),
        np.repeat(np.arange(epochs, dtype=np.int32), steps * global_batch_size),
        np.concatenate([_occurrence(rows) for rows in per_epoch]),
        np.ones(epochs * steps * global_batch_size, np.float32),
        global_batch_size,
    )


def weigh_classes(
    plan: Plan, labels: Sequence[int] | IntArray, class_weights: ClassWeights, classes: Sequence[str]
) -> Plan:
    """Give every row of a training plan the weight of its class.

    `balanced` is scikit-learn's `compute_class_weight("balanced")`, rows / (classes * rows of the class), over what an
    epoch of the plan shows, not over the data set. Where the plan has balanced the classes already, every weight is 1,
    but for the odd row.

    Args:
        plan: What `training_plan` made of the labels.
        labels: The class index of every training image.
        class_weights: See `TrainingConfig.class_weights`.
        classes: The names of all classes, by index.

    Returns:
        The plan with weights whose mean over every epoch is 1.

    Raises:
        ConfigError: The weights given by name lack a class, or name one that is not there.
    """
    if class_weights == "none":
        return plan
    targets = np.asarray(labels)[plan.row]
    weight = np.empty(len(targets), np.float64)
    for epoch in np.unique(plan.epoch):
        rows = plan.epoch == epoch
        relative = _relative_weights(targets[rows], class_weights, classes)[targets[rows]]
        weight[rows] = relative / relative.mean()
    return replace(plan, weight=weight.astype(np.float32))


def validation_plan(images: int, global_batch_size: int) -> Plan:
    """Plan one pass over all images; the last batch is filled with rows of weight 0."""
    size = -(-images // global_batch_size) * global_batch_size
    row = np.arange(size, dtype=np.int32)
    zeros = np.zeros(size, np.int32)
    return Plan(np.where(row < images, row, 0), zeros, zeros, (row < images).astype(np.float32), global_batch_size)


def _epoch_rows(labels: npt.NDArray[np.int_], global_batch_size: int, balance: Balance) -> int:
    """Return the rows that an epoch has before its remainder is left out: at least a batch."""
    rows, what = len(labels), "number of training images"
    if isinstance(balance, PerClass):
        classes = len(np.unique(labels))
        rows, what = (
            balance.n_per_class * classes,
            f"rows of an epoch ({balance.n_per_class} of each of {classes} classes)",
        )
    if rows < global_batch_size:
        raise ConfigError(
            f"training.global_batch_size must be at most the {what}, {rows}. Received: {global_batch_size}"
        )
    return rows


def _order(labels: npt.NDArray[np.int_], size: int, balance: Balance, rng: np.random.Generator) -> IntArray:
    """Return the rows of one epoch, in order."""
    if balance == "none":
        return rng.permutation(len(labels))[:size].astype(np.int32)
    classes, counts = np.unique(labels, return_counts=True)
    shares = _apportion(size, np.sqrt(counts) if balance == "sqrt" else np.ones(len(classes)), rng)
    rows = [_draw(np.flatnonzero(labels == c), int(n), rng) for c, n in zip(classes, shares, strict=True)]
    return rng.permutation(np.concatenate(rows)).astype(np.int32)


def _apportion(size: int, proportions: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.int_]:
    """Divide rows among classes by the method of the largest remainder (Hamilton's), equal remainders by lot."""
    ideal = size * proportions / proportions.sum()
    shares: npt.NDArray[np.int_] = np.floor(ideal).astype(int)
    lot = rng.permutation(len(shares))
    largest = lot[np.argsort(shares[lot] - ideal[lot], kind="stable")]
    shares[largest[: size - shares.sum()]] += 1
    return shares


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


def _relative_weights(
    targets: npt.NDArray[np.int_], class_weights: ClassWeights, classes: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Return the weight of every class that an epoch's rows show, on any scale; by class index."""
    if isinstance(class_weights, dict):
        unknown = [name for name in class_weights if name not in classes]
        missing = [name for name in classes if name not in class_weights]
        if unknown or missing:
            problem = f"{unknown[0]!r} is no class" if unknown else f"{missing[0]!r} has no weight"
            raise ConfigError(
                f"training.class_weights: {problem}. A weight is needed for each of: {', '.join(classes)}"
            )
        return np.array([class_weights[name] for name in classes])
    counts = np.bincount(targets, minlength=len(classes))
    # A class that the epoch does not show needs no weight, and has none that is finite.
    balanced = 1.0 / np.maximum(counts, 1)
    return np.sqrt(balanced) if class_weights == "sqrt" else balanced
