"""What a network is built of."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ModelConfig(BaseModel):
    """The network.

    Attributes:
        backbone: A name that `dermaray.models.backbones` registers.
        dropout: Share of the head's inputs set to zero while training.
        options: Arguments of the backbone's builder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = "case_study_cnn"
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    options: dict[str, Any] = Field(default_factory=dict)
