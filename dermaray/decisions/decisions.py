"""What follows from a network's probabilities and features: label, alert, prediction set, and whether to refer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dermaray.decisions.arrays import BoolArray, Float32Array, FloatArray
from dermaray.decisions.calibration import Calibration
from dermaray.decisions.novelty import Novelty
from dermaray.decisions.thresholds import Threshold


@dataclass(frozen=True)
class Decided:
    """Of N images, what a model says.

    Attributes:
        probabilities: Calibrated, float32 [N, C]; each row sums to 1.
        label: The answer, int [N].
        alert: Whether melanoma is to be feared, bool [N]; None where the model cannot tell.
        prediction_set: Which classes it may be, bool [N, C].
        refer: Whether the model leaves the answer to a dermatologist, since the set does not hold the answer alone,
            nothing is promised of that class, or the image is strange, bool [N].
        ood_score: How strange the image is, float32 [N]; above 1, more than 99 in 100 validation images, or than all;
            see `fit_novelty`.
    """

    probabilities: Float32Array
    label: npt.NDArray[np.intp]
    alert: BoolArray | None
    prediction_set: BoolArray
    refer: BoolArray
    ood_score: Float32Array

    def rows(self, which: npt.NDArray[Any]) -> "Decided":
        """Return what was decided on some of the images, by position or as a mask."""
        return Decided(
            self.probabilities[which],
            self.label[which],
            None if self.alert is None else self.alert[which],
            self.prediction_set[which],
            self.refer[which],
            self.ood_score[which],
        )


@dataclass(frozen=True)
class Decisions:
    """How a model decides; fitted on validation images by `dermaray.decisions.fit`.

    Attributes:
        calibration: What makes the probabilities mean what they say.
        label_weights: The answer is the class with the highest probability times its weight; one per class.
        melanoma: The position of the melanoma class; None where the model has none.
        alert: The probability of melanoma from which on an alert is given; None where there is no melanoma class, or
            was no image of it to fit this on.
        sets: Of each class, the probability from which on it is in the prediction set.
        novelty: What tells that an image is strange.
        facts: What was asked for and what it was fitted on, as JSON values, for people to read.
    """

    calibration: Calibration
    label_weights: tuple[float, ...]
    melanoma: int | None
    alert: Threshold | None
    sets: tuple[Threshold, ...]
    novelty: Novelty
    facts: dict[str, Any]

    def __call__(self, probabilities: FloatArray, features: FloatArray) -> Decided:
        """Decide on a network's softmax [N, C] and features [N, D]."""
        calibrated = self.calibration(probabilities)
        sets = calibrated >= np.array([threshold.probability for threshold in self.sets], np.float32)
        label, ood_score = weighted(calibrated, self.label_weights).argmax(axis=1), self.novelty(features)
        promised = np.array([threshold.groups > 0 for threshold in self.sets])
        decisive = (sets.sum(axis=1) == 1) & sets[np.arange(len(label)), label] & promised[label]
        return Decided(
            calibrated,
            label,
            None if self.alert is None else calibrated[:, self.melanoma] >= np.float32(self.alert.probability),
            sets,
            ~decisive | (ood_score > 1),
            ood_score,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all but `novelty`, which is arrays, as JSON values; see `from_dict`."""
        return {
            "calibration": self.calibration._asdict(),
            "label_weights": list(self.label_weights),
            "melanoma": self.melanoma,
            "alert": None if self.alert is None else self.alert._asdict(),
            "sets": [threshold._asdict() for threshold in self.sets],
            "facts": self.facts,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], novelty: Novelty) -> "Decisions":
        """Return what `to_dict` was made of.

        Raises:
            KeyError: A value is missing.
            TypeError: One is of another kind.
        """
        calibration = Calibration(float(values["calibration"]["temperature"]), tuple(values["calibration"]["bias"]))
        return cls(
            calibration,
            tuple(values["label_weights"]),
            values["melanoma"],
            None if values["alert"] is None else Threshold(**values["alert"]),
            tuple(Threshold(**threshold) for threshold in values["sets"]),
            novelty,
            dict(values["facts"]),
        )


def weighted(probabilities: FloatArray, weights: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Return probabilities times the weights of their classes, [N, C], scaled so that each row sums to 1."""
    products = probabilities.astype(np.float64) * np.asarray(weights)
    shares: npt.NDArray[np.float64] = products / products.sum(axis=1, keepdims=True)
    return shares
