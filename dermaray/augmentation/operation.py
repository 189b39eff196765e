"""What all operations of a recipe have in common."""

from random import Random
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from dermaray.augmentation.scene import Scene


class Operation(BaseModel):
    """One step of a recipe; fields are called as the arguments of Augmentor's method of the same name.

    Attributes:
        name: What a recipe calls it.
        probability: How often the step is taken, above 0, at most 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: ClassVar[str]
    probability: float = Field(gt=0.0, le=1.0)

    def apply(self, scene: Scene, draws: Random) -> None:
        """Draw what is random, and do it."""
        raise NotImplementedError
