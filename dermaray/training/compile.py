"""What Keras is told of a stage."""

import keras

from dermaray.config import TrainingConfig
from dermaray.models.classifier import HEAD
from dermaray.training.losses import training_loss
from dermaray.training.optimizer import build_optimizer
from dermaray.training.stages import Stage


def compile_stage(model: keras.Model, training: TrainingConfig, stage: Stage, jit_compile: bool) -> None:
    """Make a classifier ready for a stage: which layers train, by which optimiser, loss and metrics."""
    for layer in model.layers:
        layer.trainable = layer.name == HEAD or not stage.head_only
    model.compile(
        optimizer=build_optimizer(training, stage.learning_rate, stage.optimizer_stop - stage.optimizer_start),
        loss=training_loss(training),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=jit_compile,
    )
    # Else the first step would make its variables, and be traced a second time, which takes 7 s for an EfficientNet.
    model.optimizer.build(model.trainable_variables)
