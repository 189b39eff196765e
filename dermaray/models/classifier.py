"""A classifier: pixels in, one probability per class out, everything between in one graph."""

from typing import Any

import keras

from dermaray.images.spec import InputSpec
from dermaray.models.backbones import build_features
from dermaray.models.spec import ModelConfig

HEAD = "probabilities"
"""The layer that tells the classes apart; all before it is the backbone."""

FEATURES = "features"
"""The layer that gives on what the backbone has made of the pixels, [batch, features]."""

MEMBER = "member_"
"""What the names of an ensemble's members begin with; each is a classifier."""


def build_classifier(
    config: ModelConfig, spec: InputSpec, classes: int, model_class: type[Any] = keras.Model
) -> keras.Model:
    """Build an untrained model.

    Args:
        config: Backbone and head.
        spec: The pixels that it takes.
        classes: How many probabilities it gives.
        model_class: `keras.Model`, or a subclass that trains differently.

    Returns:
        A model from uint8 [batch, height, width, 3] to float32 [batch, classes]; each row sums to 1.

    Raises:
        ConfigError: The backbone or one of its options is unknown.
        ArtifactError: The weights that it shall start from cannot be read.
    """
    pixels = keras.Input(spec.shape, dtype="uint8", name="image")
    features = keras.layers.Identity(name=FEATURES)(build_features(config, pixels))
    if config.dropout:
        features = keras.layers.Dropout(config.dropout, name="head_dropout")(features)
    # In the precision of the weights whatever the others compute in: softmax loses too much in half of it.
    precision = keras.config.dtype_policy().variable_dtype
    probabilities = keras.layers.Dense(classes, activation="softmax", dtype=precision, name=HEAD)(features)
    return model_class(pixels, probabilities, name="classifier")


def with_features(model: keras.Model, name: str | None = None) -> keras.Model:
    """Return a model that gives the features beside the probabilities, from the same weights.

    Args:
        model: What `build_classifier` built, or what `combine` made of several, which gives both already.
        name: What it shall be called.
    """
    both = model.outputs if len(model.outputs) > 1 else [model.output, model.get_layer(FEATURES).output]
    return keras.Model(model.input, both, name=name)


def members_of(model: keras.Model) -> list[keras.Model]:
    """Return the classifiers that a model is made of: those that `combine` took, or itself."""
    return [layer for layer in model.layers if layer.name.startswith(MEMBER)] or [model]
