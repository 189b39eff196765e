"""From bytes to a prediction: the one way in, for evaluation, bulk scoring and serving."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dermaray.errors import ArtifactError
from dermaray.images.decode import DecodedImage, decode_image
from dermaray.images.resize import UInt8Array
from dermaray.labels import LabelSet
from dermaray.models.artifact import Artifact
from dermaray.models.engine import Engine, Float32Array, KerasEngine


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        probabilities: One per class, in the order of the label set; they sum to 1.
        label: The likeliest class.
        melanoma_probability: That of the melanoma class, or None where the model has none.
    """

    probabilities: dict[str, float]
    label: str
    melanoma_probability: float | None


class Predictor:
    """A model, loaded, with its own preprocessing.

    Args:
        artifact: The saved model.
        engine: What runs it; the Keras engine by default.

    Raises:
        ArtifactError: The model cannot be read.
    """

    def __init__(self, artifact: Artifact, engine: Engine | None = None) -> None:
        self.artifact = artifact
        self._engine = engine or KerasEngine(artifact)

    def decode(self, data: bytes) -> DecodedImage:
        """Decode one image as this model wants it.

        Raises:
            ImageError: See `decode_image`.
        """
        return decode_image(data, self.artifact.input_spec)

    def predict(self, data: bytes) -> Prediction:
        """Predict one image from the bytes of its file.

        Raises:
            ImageError: See `decode_image`.
        """
        return to_prediction(self.probabilities([self.decode(data).pixels])[0], self.artifact.label_set)

    def blank(self) -> UInt8Array:
        """Return a black image, uint8 [height, width, 3], to warm the engine up with."""
        return np.zeros(self.artifact.input_spec.shape, np.uint8)

    def probabilities(self, pixels: Sequence[UInt8Array] | UInt8Array) -> Float32Array:
        """Return float32 [N, classes] for N decoded images, uint8 [height, width, 3] each.

        Raises:
            ArtifactError: The model gives values that are no probabilities.
        """
        if len(pixels) == 0:
            return np.empty((0, len(self.artifact.label_set.classes)), np.float32)
        probabilities = self._engine(np.ascontiguousarray(pixels, dtype=np.uint8))
        if not np.isfinite(probabilities).all():
            raise ArtifactError(f"{self.artifact.path} gives no numbers for some images: its training has diverged")
        return probabilities


def to_prediction(probabilities: Float32Array, label_set: LabelSet) -> Prediction:
    """Name the numbers of one row, float32 [classes]."""
    melanoma = label_set.melanoma_index
    return Prediction(
        {name: float(p) for name, p in zip(label_set.classes, probabilities, strict=True)},
        label_set.classes[int(np.argmax(probabilities))],
        None if melanoma is None else float(probabilities[melanoma]),
    )
