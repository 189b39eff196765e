"""The case study's network, of which its three models are variants."""

from collections.abc import Sequence
from typing import Any

Tensor = Any


def case_study_cnn(
    pixels: Tensor,
    *,
    filters: Sequence[int] = (32, 32, 64, 64),
    dense: int = 512,
    dropout: float = 0.0,
    batch_normalization: bool = False,
) -> Tensor:
    """Build 3x3 convolutions, each halved by pooling, and one dense layer.

    Args:
        pixels: uint8 [batch, height, width, 3].
        filters: Channels of each convolution.
        dense: Width of the dense layer.
        dropout: Share dropped after every second convolution.
        batch_normalization: Normalise after every convolution.
    """
    import keras

    x = keras.layers.Rescaling(1 / 255, name="rescaling")(pixels)
    for i, channels in enumerate(filters, start=1):
        x = keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"conv{i}")(x)
        if batch_normalization:
            x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{i}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{i}")(x)
        if dropout and i % 2 == 0:
            x = keras.layers.Dropout(dropout, name=f"dropout{i}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.layers.Dense(dense, activation="relu", name="dense")(x)
