"""Probabilities that mean what they say: of the images that get 0.7, seven in ten are of that class.

A network that was trained until its training images were right is too sure of itself. What is fitted on validation
images corrects that, and nothing else: one number for all logits, or besides one for each class.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from dermaray.decisions.arrays import Float32Array, FloatArray, IntArray

# In nats over all images, for each squared: a class without a validation image would get a bias of minus infinity, and
# a network that is right about all of a few images a temperature of zero.
_BIAS_PENALTY, _TEMPERATURE_PENALTY = 1.0, 0.1

# exp(-60) is less than what a float32 between 0 and 1 can tell from another.
_LOWEST_LOG = -60.0


class Calibration(NamedTuple):
    """What is done to logits before they become probabilities.

    Attributes:
        temperature: They are divided by it; above 1 makes the network less sure.
        bias: Added after that, one per class; their sum is 0.
    """

    temperature: float
    bias: tuple[float, ...]

    def __call__(self, probabilities: FloatArray) -> Float32Array:
        """Return calibrated probabilities, float32 [N, C], of a softmax's, [N, C]."""
        logits = _logs(probabilities) / self.temperature + np.asarray(self.bias)
        calibrated: Float32Array = softmax(logits, axis=-1).astype(np.float32)
        return calibrated


def fit_calibration(probabilities: FloatArray, labels: IntArray, *, bias: bool) -> Calibration:
    """Find the calibration by which the labels are most likely.

    Args:
        probabilities: A softmax's, [N, C].
        labels: The true classes, [N], 0 to C - 1.
        bias: Fit a bias for each class as well.
    """
    # A softmax gives its logits back but for a number that is the same for all classes, which says nothing.
    logits = _logs(probabilities)
    classes = logits.shape[1]
    rows = np.arange(len(labels))

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        likely = log_softmax(logits * np.exp(-parameters[0]) + parameters[1:], axis=1)[rows, labels]
        penalty = _TEMPERATURE_PENALTY * parameters[0] ** 2 + _BIAS_PENALTY * (parameters[1:] ** 2).sum()
        return float(-likely.mean() + penalty / len(labels))

    bounds = [(-4.0, 4.0), *([(-8.0, 8.0) if bias else (0.0, 0.0)] * classes)]
    found = minimize(loss, np.zeros(1 + classes), method="L-BFGS-B", bounds=bounds).x
    return Calibration(float(np.exp(found[0])), tuple(float(b) for b in found[1:] - found[1:].mean()))


def _logs(probabilities: FloatArray) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        logs: npt.NDArray[np.float64] = np.maximum(np.log(probabilities.astype(np.float64)), _LOWEST_LOG)
    return logs
