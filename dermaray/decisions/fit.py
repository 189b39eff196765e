"""Decisions fitted on validation images, which the network was not trained on."""

from typing import Any

import numpy as np
import numpy.typing as npt

from dermaray.decisions.arrays import BoolArray, Float32Array, FloatArray, IntArray
from dermaray.decisions.calibration import fit_calibration
from dermaray.decisions.decisions import Decisions
from dermaray.decisions.novelty import fit_novelty
from dermaray.decisions.settings import DecisionConfig
from dermaray.decisions.thresholds import Threshold, certain_threshold, covering_threshold, one_of_each
from dermaray.labels import LabelSet

_ALWAYS = Threshold(0.0, 1.0, 0)
"""Reached by everything."""


def fit_decisions(
    probabilities: FloatArray,
    features: FloatArray,
    labels: IntArray,
    groups: npt.NDArray[Any],
    label_set: LabelSet,
    config: DecisionConfig,
) -> Decisions:
    """Fit all that a model decides by.

    Args:
        probabilities: The network's softmax for the validation images, [N, C].
        features: What its last layer sees of them, [N, D].
        labels: Their true classes, [N], 0 to C - 1.
        groups: Which images show one lesion or patient, [N], any values that can be sorted.
        label_set: The C classes.
        config: What the decisions shall be.
    """
    calibration = fit_calibration(probabilities, labels, bias=config.calibration == "bias_corrected")
    calibrated = calibration(probabilities)
    of_class = [_of_each_lesion(calibrated[:, k], labels == k, groups) for k in range(len(label_set.classes))]
    melanoma = label_set.melanoma_index
    alert, sets = None, [covering_threshold(own, config.coverage) for own in of_class]
    if melanoma is not None and len(of_class[melanoma]):
        alert = certain_threshold(of_class[melanoma], config.alert_sensitivity, config.alert_confidence)
    elif melanoma is not None:
        # What the model was not validated for it rules out the least where it does the most harm.
        sets[melanoma] = _ALWAYS
    return Decisions(
        calibration,
        _label_weights(labels, len(label_set.classes), config),
        melanoma,
        alert,
        tuple(sets),
        fit_novelty(features, groups),
        {"asked_for": config.model_dump(), "images": len(labels), "groups": len(np.unique(groups))},
    )


def _of_each_lesion(probabilities: Float32Array, is_class: BoolArray, groups: npt.NDArray[Any]) -> Float32Array:
    """Return the probabilities of a class for its own images, one of each lesion."""
    return probabilities[is_class][one_of_each(groups[is_class])]


def _label_weights(labels: IntArray, classes: int, config: DecisionConfig) -> tuple[float, ...]:
    if config.label == "most_probable":
        return (1.0,) * classes
    counts = np.bincount(labels, minlength=classes)
    # A class that was not validated is not named sooner for that.
    return tuple(float(counts.max() / count) if count else 1.0 for count in counts)
