"""What a network is built of."""

from typing import Any

from pydantic import Field

from dermaray.yaml_config import Section


class ModelConfig(Section):
    """The network.

    Attributes:
        backbone: A name of `dermaray.models.backbones.BACKBONES`.
        weights: What the backbone starts from: `none` (drawn from the run's seed), `imagenet`, or a file with the
            weights of such a backbone: the `model.keras` of a run, or what Keras's `save_weights` wrote.
        dropout: Share of the head's inputs set to zero while training.
        options: Arguments of the backbone's builder.
    """

    backbone: str = "case_study_cnn"
    weights: str = "none"
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    options: dict[str, Any] = Field(default_factory=dict)
