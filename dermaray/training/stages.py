"""The stages of a run: the head alone, then all layers with an optimiser of their own, at first on small images."""

from dataclasses import dataclass

from dermaray.config import TrainingConfig


@dataclass(frozen=True)
class Stage:
    """Steps that are taken with the same layers, the same optimiser and images of the same size.

    Attributes:
        start: The first step, counted over the run.
        stop: The step after the last.
        head_only: Train the last layer alone. Batch normalisation in the others is as in inference, dropout is not.
        learning_rate: The highest of its optimiser.
        optimizer_start: The first step of its optimiser, which may be that of an earlier stage.
        optimizer_stop: The step after its last.
        scale: The height and width of images, in shares of the model's.
    """

    start: int
    stop: int
    head_only: bool
    learning_rate: float
    optimizer_start: int
    optimizer_stop: int
    scale: float = 1.0


def stages(training: TrainingConfig, steps_per_epoch: int) -> list[Stage]:
    """Return the stages of a run, in order."""
    head, small, end = (
        epochs * steps_per_epoch for epochs in (training.head_epochs, training.small_epochs, training.epochs)
    )
    rate, head_rate = training.learning_rate, training.head_learning_rate or training.learning_rate
    scale = training.small_scale if small else 1.0
    planned = [
        Stage(0, head, True, head_rate, 0, head, scale),
        Stage(head, small, False, rate, head, end, scale),
        Stage(max(head, small), end, False, rate, head, end),
    ]
    return [stage for stage in planned if stage.start < stage.stop]
