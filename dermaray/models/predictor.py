"""From bytes to a prediction: the one way in, for evaluation, bulk scoring and serving."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dermaray.decisions.arrays import Float32Array
from dermaray.decisions.decisions import Decided
from dermaray.errors import ArtifactError
from dermaray.images.decode import DecodedImage, decode_image
from dermaray.images.resize import UInt8Array
from dermaray.models.artifact import Artifact
from dermaray.models.engine import Engine, KerasEngine, in_parts

ENGINE_BATCH = 32
"""Images that a network sees at a time, at most."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image; see `Decided`.

    Attributes:
        label: The answer.
        melanoma_probability: That of the melanoma class, or None where the model has none.
        alert: Whether melanoma is to be feared; None where the model cannot tell.
        refer: Whether the model leaves the answer to a dermatologist, since the set does not hold the answer alone,
            nothing is promised of it or the image is strange.
        prediction_set: The classes that it may be, in the order of the label set.
        ood_score: How strange the image is; above 1, stranger than 99 in 100 of those that it was validated on, or all.
        probabilities: One per class, in the order of the label set; they sum to 1.
        model: The model's name.
        model_version: Its version, in its maker's words.
        model_digest: What tells it from any other.
    """

    label: str
    melanoma_probability: float | None
    alert: bool | None
    refer: bool
    prediction_set: tuple[str, ...]
    ood_score: float
    probabilities: dict[str, float]
    model: str
    model_version: str
    model_digest: str

    @classmethod
    def of(cls, decided: Decided, row: int, artifact: Artifact) -> "Prediction":
        """Name the numbers of one row."""
        label_set = artifact.label_set
        probabilities, melanoma = decided.probabilities[row], label_set.melanoma_index
        return cls(
            label_set.classes[decided.label[row]],
            None if melanoma is None else float(probabilities[melanoma]),
            None if decided.alert is None else bool(decided.alert[row]),
            bool(decided.refer[row]),
            tuple(name for name, held in zip(label_set.classes, decided.prediction_set[row], strict=True) if held),
            float(decided.ood_score[row]),
            {name: float(p) for name, p in zip(label_set.classes, probabilities, strict=True)},
            artifact.name,
            artifact.version,
            artifact.digest,
        )


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
        self._engine = engine or KerasEngine(artifact.load_model())

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
        return self.named(self.decide([self.decode(data).pixels]))[0]

    def blank(self) -> UInt8Array:
        """Return a black image, uint8 [height, width, 3], to warm the engine up with."""
        return np.zeros(self.artifact.input_spec.shape, np.uint8)

    def named(self, decided: Decided) -> list[Prediction]:
        """Name the numbers of every row."""
        return [Prediction.of(decided, row, self.artifact) for row in range(len(decided.label))]

    def decide(self, pixels: Sequence[UInt8Array] | UInt8Array) -> Decided:
        """Decide on N decoded images, uint8 [height, width, 3] each.

        Raises:
            ArtifactError: The model gives values that are no probabilities.
        """
        decisions = self.artifact.decisions
        if len(pixels) == 0:
            return decisions(
                *(np.empty((0, size), np.float32) for size in (len(decisions.sets), decisions.novelty.size))
            )
        return decisions(*run_engine(self._engine, np.ascontiguousarray(pixels, dtype=np.uint8)))


def run_engine(engine: Engine, pixels: UInt8Array) -> tuple[Float32Array, Float32Array]:
    """Return a network's probabilities [N, C] and features [N, D] of pixels, uint8 [N, height, width, 3], N at least 1.

    Raises:
        ArtifactError: The network gives values that are no probabilities.
    """
    probabilities, features = in_parts(engine, pixels, ENGINE_BATCH)
    if not np.isfinite(probabilities).all():
        raise ArtifactError("the model gives no numbers for some images: its training has diverged")
    return probabilities, features
