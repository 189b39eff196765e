"""What an image becomes before a model sees it."""

from typing import Literal

from pydantic import Field

from dermaray.yaml_config import Section


class InputSpec(Section):
    """How bytes become the uint8 array [height, width, 3] that a model takes. It is saved with the model.

    Attributes:
        height: Rows of the array, in pixels.
        width: Columns of the array, in pixels.
        resize: `stretch` ignores the aspect ratio, `crop` cuts the largest centred rectangle of the right aspect ratio,
            `pad` keeps the whole frame and fills the rest with black.
        scaled_decoding: Let the JPEG decoder shrink by 2, 4 or 8 while it decodes, never below the size asked for.
            Faster, and changes pixels slightly.
    """

    height: int = Field(180, ge=16, le=2048)
    width: int = Field(180, ge=16, le=2048)
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    scaled_decoding: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the array: (height, width, 3)."""
        return (self.height, self.width, 3)

    def scaled(self, scale: float) -> "InputSpec":
        """Return the same for an array of other height and width, in shares of these."""
        return self.model_copy(update={"height": round(self.height * scale), "width": round(self.width * scale)})
