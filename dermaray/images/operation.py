"""What all operations of a recipe have in common."""

from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from dermaray.images.scene import Scene


class Draws(Protocol):
    """Where an operation gets its random numbers: the methods of `random.Random` that operations use."""

    def uniform(self, a: float, b: float, /) -> float: ...  # noqa: D102
    def randint(self, a: int, b: int, /) -> int: ...  # noqa: D102
    def choice(self, items: Any, /) -> Any: ...  # noqa: D102
    def gauss(self, mu: float, sigma: float, /) -> float: ...  # noqa: D102
    def randbytes(self, n: int, /) -> bytes: ...  # noqa: D102


class Operation(BaseModel):
    """One step of a recipe; fields are called as the arguments of Augmentor's method of the same name.

    Attributes:
        name: What a recipe calls it.
        probability: How often the step is taken, above 0, at most 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: ClassVar[str]
    probability: float = Field(gt=0.0, le=1.0)

    def apply(self, scene: Scene, draws: Draws) -> None:
        """Draw what is random, and do it."""
        self._apply(scene, draws)

    def _apply(self, scene: Scene, draws: Draws) -> None:
        raise NotImplementedError
