"""Thresholds that hold a promise about images which nobody has seen, whatever the network is worth.

All that is assumed is that the next image comes from where the validation images come from. Since images of one lesion
are alike, each lesion counts once.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binom


class Threshold(NamedTuple):
    """A probability from which on something is said.

    Attributes:
        probability: At or above it. Where there is no image to fit it on 2, which nothing reaches, or of melanoma 0,
            which everything does.
        guaranteed: The share of the class's images that reach it, at least; less than was asked for where the images
            are too few for more. Where there is none, 0, or 1 if everything reaches it.
        groups: How many lesions it was fitted on.
    """

    probability: float
    guaranteed: float
    groups: int


_NONE = Threshold(2.0, 0.0, 0)


def certain_threshold(probabilities: npt.NDArray[Any], share: float, confidence: float) -> Threshold:
    """Return the highest threshold that at least a share of new images reaches, with a confidence.

    The share of new images below the k-th lowest of n probabilities has the distribution Beta(k, n - k + 1), whatever
    theirs is (Wilks 1941, "Determination of sample sizes for setting tolerance limits").

    Args:
        probabilities: Of the class, for images that are of the class, one per lesion; [N].
        share: To be reached, 0 to 1. Of fewer than ln(1 - confidence) / ln(share) images, the lowest is taken.
        confidence: In how many of all validation sets that could have been drawn this shall hold, 0 to 1.
    """
    count = len(probabilities)
    if not count:
        return _NONE
    misses = np.arange(count)
    allowed = misses[binom.cdf(misses, count, 1 - share) <= 1 - confidence]
    lowest = np.sort(probabilities)
    if len(allowed):
        return Threshold(float(lowest[allowed[-1]]), share, count)
    return Threshold(float(lowest[0]), float((1 - confidence) ** (1 / count)), count)


def covering_threshold(probabilities: npt.NDArray[Any], coverage: float) -> Threshold:
    """Return the highest threshold that a new image of the class reaches with a probability of at least `coverage`.

    Split conformal prediction within a class (Vovk et al. 2005, "Algorithmic learning in a random world", 4.5; Sadinle
    et al. 2019, "Least ambiguous set-valued classifiers with bounded error levels"). The probability is that over
    validation sets and new images together.

    Args:
        probabilities: See `certain_threshold`.
        coverage: 0 to 1. Of fewer than coverage / (1 - coverage) images, the lowest is taken.
    """
    count = len(probabilities)
    if not count:
        return _NONE
    # But for rounding: a tenth of 10 is 1.
    missed = int((1 - coverage) * (count + 1) + 1e-9)
    lowest = np.sort(probabilities)
    guaranteed = coverage if missed else count / (count + 1)
    return Threshold(float(lowest[max(missed - 1, 0)]), guaranteed, count)


def one_of_each(groups: npt.NDArray[Any], seed: int = 0) -> npt.NDArray[np.intp]:
    """Return the position of one image of each group, drawn at random; groups [N] are any values that can be sorted."""
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    return np.sort(order[first])
