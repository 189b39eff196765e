"""The stages of a run: the head alone, then all layers; each with an optimiser of its own."""

from dataclasses import dataclass

import keras

from dermaray.config import TrainingConfig
from dermaray.models.classifier import HEAD
from dermaray.training.losses import training_loss
from dermaray.training.optimizer import build_optimizer


@dataclass(frozen=True)
class Stage:
    """Steps that are taken with the same layers and the same optimiser.

    Attributes:
        start: The first step, counted over the run.
        stop: The step after the last.
        head_only: Train the last layer alone. The others are as they are in inference, batch normalisation included.
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


def compile_stage(model: keras.Model, training: TrainingConfig, stage: Stage, jit_compile: bool) -> None:
    """Make a classifier ready for a stage: which layers train, by which optimiser, loss and metrics."""
    for layer in model.layers:
        layer.trainable = layer.name == HEAD or not stage.head_only
    model.compile(
        optimizer=build_optimizer(training, stage.learning_rate, stage.stop - stage.start),
        loss=training_loss(training),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=jit_compile,
    )
