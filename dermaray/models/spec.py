"""What a network is built of."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dermaray.errors import ConfigError
from dermaray.yaml_config import Section

Version = Annotated[str, Field(min_length=1), BeforeValidator(lambda v: str(v) if type(v) is int else v)]
"""A version in its user's own words; YAML takes `2` for a number."""

WeightsAs = Literal["float32", "float16", "int8"]
"""What weights are rounded to; see `RunConfig.weights_as`."""


class ModelConfig(Section):
    """The network.

    Attributes:
        backbone: `case_study_cnn`, `efficientnet_lite0`, `efficientnet_lite1`, `efficientnet_lite2`, or a name of
            `keras.applications` (`ResNet50`, `EfficientNetV2B0`, ...).
        weights: What the backbone starts from: `none` (drawn from the run's seed), `imagenet`, or a file with the
            weights of such a backbone: the `model.keras` of a run of one network with one view, or what Keras's
            `save_weights` wrote.
        dropout: Share of the head's inputs set to zero while training.
        options: Of the backbone, as a mapping: for the case study's CNN `filters` ([32, 32, 64, 64] by default),
            `dense` (512), `dropout` (0.0) and `batch_normalization` (false), for EfficientNet-Lite `drop_connect`
            (0.0), the share of blocks to skip at random.
    """

    backbone: str = "case_study_cnn"
    weights: str = "none"
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    options: dict[str, Any] = Field(default_factory=dict)


def check_views(views: int, height: int, width: int) -> None:
    """Check that images have so many views of one shape.

    Args:
        views: 1, the image as it is; 2, also mirrored; 4, also each upside down; 8, also all of these turned by 90
            degrees.
        height: In pixels.
        width: In pixels.

    Raises:
        ConfigError: They have not.
    """
    if views == 8 and height != width:
        raise ConfigError(f"views=8 turns images by 90 degrees, which needs a square input. Received: {height}x{width}")
