"""What all operations of a recipe have in common."""

from random import Random
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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

    def takes(self, mode: str) -> bool:
        """Tell whether Augmentor can do it to an image of one of Pillow's modes, see `Scene.mode`."""
        return True


class FactorOperation(Operation):
    """An operation that blends with another image, by a factor drawn from a range.

    Attributes:
        min_factor: Its smallest value; 0 gives the other image and 1 this one.
        max_factor: Its largest.
    """

    min_factor: float = Field(ge=0.0, le=255.0)
    max_factor: float = Field(ge=0.0, le=255.0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_factor > self.max_factor:
            raise ValueError(f"min_factor must be at most max_factor, which is {self.max_factor:g}")
        return self

    def takes(self, mode: str) -> bool:
        """See `Operation.takes`."""
        return mode != "1"
