"""What training lowers: the cross entropy, with labels smoothed or not, or the focal loss."""

from typing import Any

import keras

from dermaray.config import TrainingConfig


class SmoothedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """The cross entropy with labels that are not quite certain (Szegedy et al. 2016, "Rethinking the Inception
    Architecture for Computer Vision").

    Keras smooths one-hot labels alone; this takes class indices, as all losses here.

    Args:
        smoothing: The share of every label that is spread evenly over all classes, 0 to below 1.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__(name="smoothed_cross_entropy")
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of every row, float [rows]; see `FocalLoss.call`."""
        return keras.losses.categorical_crossentropy(_one_hot(y_true, y_pred), y_pred, label_smoothing=self.smoothing)


class FocalLoss(keras.losses.Loss):  # type: ignore[misc]
    """The focal loss of Lin et al. 2017, "Focal Loss for Dense Object Detection", over several classes.

    A row's loss is -(1 - p)^gamma * log(p), where p is the probability that the model gives to the row's class, clipped
    to [1e-7, 1 - 1e-7]. The paper's alpha, a weight per class, is left to the rows' weights.

    Args:
        gamma: 0 is the cross entropy; the greater, the less counts a row that is already right.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__(name="focal")
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of every row, float [rows].

        Args:
            y_true: Class indices [rows], of any dtype.
            y_pred: Probabilities [rows, classes].
        """
        return keras.losses.categorical_focal_crossentropy(
            _one_hot(y_true, y_pred), y_pred, alpha=1.0, gamma=self.gamma
        )


def training_loss(training: TrainingConfig) -> keras.losses.Loss:
    """Return the loss of a configuration; it takes class indices, probabilities and weights of the rows."""
    if training.loss == "focal":
        return FocalLoss(training.focal_gamma)
    if training.label_smoothing:
        return SmoothedCrossEntropy(training.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy()


def _one_hot(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.one_hot(keras.ops.cast(y_true, "int32"), y_pred.shape[-1])
