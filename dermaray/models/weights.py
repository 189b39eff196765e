"""Weights into a model."""

from typing import Any

import keras


def set_weights(model: keras.Model, weights: list[Any]) -> None:
    """Set a model's weights, and recompute what layers derive from theirs.

    Args:
        model: Any.
        weights: What `get_weights` of such a model gave.
    """
    model.set_weights(weights)
    derive_constants(model)


def derive_constants(model: keras.Model) -> None:
    """Recompute the constants that normalisation layers make of their weights; Keras leaves them as they were."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
