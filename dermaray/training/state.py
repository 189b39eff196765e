"""The state of a run between two steps: what a checkpoint holds, and from which the run goes on as if nothing had been.

Everything that a later step depends on is a number of steps or a variable: the order of images and their augmentation
follow from the plan, the learning rate from the optimiser's step, dropout from the model's own generators, and early
stopping from the history.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dermaray.config import TrainingConfig
from dermaray.errors import OutputError, TrainingError

if TYPE_CHECKING:
    import keras

SCALE = "scale"
"""In the figures of an epoch: at which share of its size the model saw images, where that is not always the same."""

_PROGRESS = "progress"
_PARTS = ("best", "model", "optimizer", "metrics")
_FORMAT_VERSION = 1

Arrays = list[npt.NDArray[Any]]


@dataclass
class RunState:
    """A run so far.

    Attributes:
        step: Steps done, over all epochs.
        history: The figures of every epoch done.
        best: The weights of the epoch with the lowest validation loss, as `get_weights` gives them; empty before the
            first has ended.
        model: All of the network's variables, the state of its random generators among them.
        optimizer: All variables of the optimiser.
        metrics: All variables of the metrics, which in the midst of an epoch hold its figures so far.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: Arrays = field(default_factory=list)
    model: Arrays = field(default_factory=list)
    optimizer: Arrays = field(default_factory=list)
    metrics: Arrays = field(default_factory=list)

    @property
    def best_epoch(self) -> dict[str, float]:
        """The figures of the best epoch; see `best_epoch`."""
        return best_epoch(self.history)

    def is_stale(self, training: TrainingConfig) -> bool:
        """Tell whether `early_stopping` ends the run here. Epochs of the head alone or on small images do not count."""
        if training.early_stopping is None or not self.history:
            return False
        since = max(self.best_epoch["epoch"], training.head_epochs, training.small_epochs)
        return self.history[-1]["epoch"] - since >= training.early_stopping

    def capture(self, model: "keras.Model") -> None:
        """Take over a compiled model's variables; on all workers at once, since their metrics are summed for it."""
        self.model = values_of(model.variables)
        self.optimizer = values_of(model.optimizer.variables)
        self.metrics = values_of(model.metrics_variables)

    def restore(self, model: "keras.Model", *, optimizer: bool) -> None:
        """Give a model its variables back, if any were captured; its optimiser's, once built, if that goes on."""
        if self.model:
            assign(model.variables, self.model)
        if self.model and optimizer:
            assign(model.optimizer.variables, self.optimizer)

    def restore_metrics(self, model: "keras.Model") -> None:
        """Give a model the figures of its epoch so far back."""
        assign(model.metrics_variables, self.metrics)

    def write(self, file: BinaryIO) -> None:
        """Write the state as a NumPy archive, of which every entry has a checksum."""
        progress = {"format_version": _FORMAT_VERSION, "step": self.step, "history": self.history}
        arrays = {_PROGRESS: np.frombuffer(json.dumps(progress).encode(), np.uint8)}
        for part in _PARTS:
            arrays |= {f"{part}/{i:05}": array for i, array in enumerate(getattr(self, part))}
        np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, file: BinaryIO) -> "RunState":
        """Read what `write` wrote.

        Raises:
            TrainingError: It is cut or damaged.
            OutputError: It is of another version.
        """
        try:
            with np.load(file, allow_pickle=False) as archive:
                progress = json.loads(archive[_PROGRESS].tobytes())
                names = sorted(archive)
                parts = {p: [archive[name] for name in names if name.startswith(f"{p}/")] for p in _PARTS}
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
            raise TrainingError(f"a checkpoint is damaged: {error}") from error
        version = progress["format_version"]
        if version != _FORMAT_VERSION:
            raise OutputError(
                f"a checkpoint has format version {version}; this dermaray reads {_FORMAT_VERSION}. "
                "Go on with the version that wrote it, or add --new to begin anew"
            )
        return cls(progress["step"], progress["history"], **parts)


def best_epoch(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the figures of the epoch with the lowest validation loss, of equal ones the first.

    Of epochs on images of several sizes those on the largest count alone.
    """
    return min(history, key=loss_order)


def loss_order(epoch: dict[str, float]) -> tuple[float, float]:
    """Return by what an epoch's figures are lower than others': on larger images, and by the validation loss then."""
    return -epoch.get(SCALE, 1.0), epoch["val_loss"]


def values_of(variables: list[Any]) -> Arrays:
    """Return copies of the values of Keras's variables."""
    return [np.array(variable) for variable in variables]


def assign(variables: list[Any], values: Arrays) -> None:
    """Give variables the values that `values_of` returned."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
