"""The optimiser of a configuration."""

from typing import Any

import keras

from dermaray.config import TrainingConfig
from dermaray.training.multiworker import summing_first

NOT_DECAYED = ("bias", "gamma", "beta")
"""Weights that `weight_decay` leaves alone, by their names: biases, and scale and shift of normalisations."""


def build_optimizer(training: TrainingConfig, rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Return an optimiser for one or two stages of a run.

    Args:
        training: The run's settings.
        rate: The highest learning rate.
        steps: How many it will take.
    """
    common = {
        "learning_rate": _learning_rate(training, rate, steps),
        "global_clipnorm": training.clip_norm,
        "use_ema": training.ema is not None,
        "ema_momentum": training.ema or 0.0,
    }
    optimizers: dict[str, tuple[type[Any], dict[str, float]]] = {
        "adam": (keras.optimizers.Adam, {}),
        "adamw": (keras.optimizers.AdamW, {"weight_decay": training.weight_decay}),
        "sgd": (keras.optimizers.SGD, {"momentum": 0.9}),
    }
    kind, own = optimizers[training.optimizer]
    optimizer = summing_first(kind)(**common, **own)
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    return optimizer


def _learning_rate(training: TrainingConfig, rate: float, steps: int) -> object:
    """Return a schedule, which depends on the optimiser's step alone, so that a resumed run needs no other state."""
    if training.schedule == "constant" and not training.warmup_steps:
        return rate
    warmup = min(training.warmup_steps, steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        # Not from 0, at which the first step would be lost.
        initial_learning_rate=rate / (warmup + 1),
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
        decay_steps=steps - warmup,
        alpha=0.0 if training.schedule == "cosine" else 1.0,
    )
