"""The worst mistakes of a model: what it was surest of, and wrong."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dermaray.decisions.arrays import IntArray
from dermaray.decisions.decisions import Decided
from dermaray.evaluation.metrics import confidences
from dermaray.labels import LabelSet

SHOWN = 8
"""Of each kind."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        row: Which image, 0 to N - 1.
        truth: The true class.
        answer: The class that was answered.
        sure: The probability of the answer.
        of_truth: The probability of the true class.
        referred: Whether the model asked for a dermatologist.
    """

    row: int
    truth: str
    answer: str
    sure: float
    of_truth: float
    referred: bool


def worst_mistakes(decided: Decided, labels: IntArray, label_set: LabelSet) -> dict[str, list[Mistake]]:
    """Return mistakes by their kind, those first that were made with the highest probability.

    Args:
        decided: What the model said of N images.
        labels: The true classes, integer [N].
        label_set: The classes.

    Returns:
        Malignant lesions that were called by a class that is not, and all other mistakes; at most `SHOWN` each, none of
        a kind that has none.
    """
    malignant = np.array([name in label_set.malignant for name in label_set.classes])
    wrong = decided.label != labels
    missed = wrong & malignant[labels] & ~malignant[decided.label]
    kinds = {"Malignant, called by a class that is not": missed, "Other mistakes": wrong & ~missed}
    if not malignant.any():
        kinds = {"Mistakes": wrong}
    return {kind: _worst(which, decided, labels, label_set) for kind, which in kinds.items() if which.any()}


def _worst(which: npt.NDArray[np.bool_], decided: Decided, labels: IntArray, label_set: LabelSet) -> list[Mistake]:
    sure, rows = confidences(decided.probabilities, decided.label), np.flatnonzero(which)
    worst: Any = rows[np.argsort(-sure[rows], kind="stable")][:SHOWN]
    return [
        Mistake(
            int(row),
            label_set.classes[labels[row]],
            label_set.classes[decided.label[row]],
            float(sure[row]),
            float(decided.probabilities[row, labels[row]]),
            bool(decided.refer[row]),
        )
        for row in worst
    ]
