"""The stages of a run: the head alone, then all layers; each with an optimiser of its own."""

from dataclasses import dataclass

from dermaray.config import TrainingConfig


@dataclass(frozen=True)
class Stage:
    """Steps that are taken with the same layers and the same optimiser.

    Attributes:
        start: The first step, counted over the run.
        stop: The step after the last.
        head_only: Train the last layer alone. Batch normalisation in the others is as in inference, dropout is not.
        learning_rate: The highest of the stage.
    """

    start: int
    stop: int
    head_only: bool
    learning_rate: float


def stages(training: TrainingConfig, steps_per_epoch: int) -> list[Stage]:
    """Return the stages of a run, in order."""
    change, end = training.head_epochs * steps_per_epoch, training.epochs * steps_per_epoch
    head = Stage(0, change, True, training.head_learning_rate or training.learning_rate)
    return [*([head] if change else []), Stage(change, end, False, training.learning_rate)]
