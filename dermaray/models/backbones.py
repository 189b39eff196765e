"""Networks by name: each builds features from uint8 pixels, its normalisation included.

A new one registers in one line: `@register("its_name")` above a function from an input tensor and options to features.
Keras is imported inside these functions, so that a name can be checked without the seconds that TensorFlow takes.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from dermaray.errors import ConfigError

Tensor = Any
"""A symbolic Keras tensor; Keras ships no types."""

Builder = Callable[..., Tensor]

_BUILDERS: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Make a builder known under a name."""

    def add(builder: Builder) -> Builder:
        _BUILDERS[name] = builder
        return builder

    return add


def check_backbone(name: str, options: dict[str, Any]) -> None:
    """Check a backbone's name and the names of its options.

    Raises:
        ConfigError: The name or an option is unknown.
    """
    if name not in _BUILDERS:
        raise ConfigError(f"model.backbone {name!r} is unknown. Known: {', '.join(sorted(_BUILDERS))}")
    known = list(inspect.signature(_BUILDERS[name]).parameters)[1:]
    for option in options:
        if option not in known:
            raise ConfigError(f"model.options: {name} has no option {option!r}. It takes: {', '.join(known)}")


def build_features(name: str, pixels: Tensor, options: dict[str, Any]) -> Tensor:
    """Build a registered network.

    Args:
        name: What it was registered as.
        pixels: uint8 [batch, height, width, 3], 0 to 255.
        options: The builder's keyword arguments.

    Returns:
        float [batch, features].

    Raises:
        ConfigError: The name or an option is unknown.
    """
    check_backbone(name, options)
    return _BUILDERS[name](pixels, **options)


@register("case_study_cnn")
def case_study_cnn(
    pixels: Tensor,
    *,
    filters: Sequence[int] = (32, 32, 64, 64),
    dense: int = 512,
    dropout: float = 0.0,
    batch_normalization: bool = False,
) -> Tensor:
    """The case study's network: 3x3 convolutions, each halved by pooling, and one dense layer.

    Args:
        pixels: uint8 [batch, height, width, 3].
        filters: Channels of each convolution.
        dense: Width of the dense layer.
        dropout: Share dropped after every second convolution.
        batch_normalization: Normalise after every convolution, over the global batch of all workers.
    """
    import keras

    x = keras.layers.Rescaling(1 / 255, name="rescaling")(pixels)
    for i, channels in enumerate(filters, start=1):
        x = keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"conv{i}")(x)
        if batch_normalization:
            # Synchronised, so that the statistics of N workers are those of one with the same global batch.
            x = keras.layers.BatchNormalization(momentum=0.9, synchronized=True, name=f"norm{i}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{i}")(x)
        if dropout and i % 2 == 0:
            x = keras.layers.Dropout(dropout, name=f"dropout{i}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.layers.Dense(dense, activation="relu", name="dense")(x)
