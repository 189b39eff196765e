"""How strange an image is to a network: far from all that it was validated on, its probabilities mean nothing.

The features that the last layer sees are described by a Gaussian distribution: its main directions in full, all others
as noise (Tipping & Bishop 1999, "Probabilistic principal component analysis"). The distance from it, by Mahalanobis, is
what tells images of other things apart (Lee et al. 2018, "A simple unified framework for detecting out-of-distribution
samples and adversarial attacks").
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dermaray.decisions.arrays import Float32Array, FloatArray
from dermaray.decisions.thresholds import covering_threshold

_MOST_COMPONENTS = 64
_IMAGES_PER_COMPONENT = 4

_USUAL = 0.99
"""The share of new images like the validation images that shall have a score of at most 1."""


@dataclass(frozen=True)
class Novelty:
    """The distribution of features.

    Attributes:
        mean: [D].
        components: The main directions, orthonormal, [K, D].
        variances: Along them, [K].
        noise: The variance along any other direction.
        scale: The squared distance that is a score of 1.
    """

    mean: Float32Array
    components: Float32Array
    variances: Float32Array
    noise: float
    scale: float

    def __call__(self, features: FloatArray) -> Float32Array:
        """Return a score for each row of features [N, D], float32 [N]: 0 and up, above 1 is strange."""
        return (np.sqrt(self._squared(features) / self.scale)).astype(np.float32)

    @property
    def size(self) -> int:
        """How many features there are, D."""
        return len(self.mean)

    def arrays(self) -> dict[str, Float32Array]:
        """Return all that a file must hold; see `from_arrays`."""
        numbers = np.array([self.noise, self.scale], np.float32)
        return {"mean": self.mean, "components": self.components, "variances": self.variances, "numbers": numbers}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Float32Array]) -> "Novelty":
        """Return what `arrays` was made of.

        Raises:
            KeyError: An array is missing.
            ValueError: One has another shape.
        """
        noise, scale = arrays["numbers"].tolist()
        return cls(arrays["mean"], arrays["components"], arrays["variances"], noise, scale)

    def _squared(self, features: FloatArray) -> npt.NDArray[np.float64]:
        centred = features.astype(np.float64) - self.mean
        along = centred @ self.components.T.astype(np.float64)
        beside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        squared: npt.NDArray[np.float64] = (along**2 / self.variances).sum(axis=1) + beside / self.noise
        return squared


def fit_novelty(features: FloatArray, groups: npt.NDArray[Any]) -> Novelty:
    """Describe the features of validation images.

    The directions are those of one half of the groups, and how far images lie from each other along them is measured on
    the other half: of its own images a description would say that they lie too near. A score of 1 is the distance that
    `_USUAL` of new images like these do not exceed (`covering_threshold`); with less than a hundred measured that is
    the largest, and of N of them one in N + 1 new images exceeds it.

    Args:
        features: [N, D], N at least 1.
        groups: Which images show one lesion or patient, [N], any values that can be sorted.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    in_half = np.random.default_rng(0).permutation(group_of.max() + 1) % 2 == 0
    described, measured = features[in_half[group_of]], features[~in_half[group_of]]
    if not len(measured):
        measured = described
    mean = described.mean(axis=0, dtype=np.float64)
    _, _, directions = np.linalg.svd(described - mean, full_matrices=False)
    components = directions[: min(_MOST_COMPONENTS, len(described) // _IMAGES_PER_COMPONENT)]
    centred = measured - mean
    along = (centred @ components.T) ** 2
    beside = np.maximum((centred**2).sum(axis=1) - along.sum(axis=1), 0).mean()
    beside /= max(features.shape[1] - len(components), 1)
    # Features that never vary would make any change infinitely strange.
    least = max(float((centred**2).mean()), 1e-6) * 1e-3
    novelty = Novelty(
        mean.astype(np.float32),
        components.astype(np.float32),
        np.maximum(along.mean(axis=0), least).astype(np.float32),
        max(float(beside), least),
        1.0,
    )
    usual = -covering_threshold(-novelty(measured), _USUAL).probability
    return replace(novelty, scale=max(usual**2, 1e-6))
