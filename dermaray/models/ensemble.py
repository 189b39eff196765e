"""Several networks, and several views of each image, as one graph that answers with their mean.

A mean of networks errs less than most of them (Lakshminarayanan et al. 2017, "Simple and scalable predictive
uncertainty estimation using deep ensembles"). A lesion has no top: turned and mirrored it is the same lesion, so the
mean over such views is an answer that does not hang on how the camera was held.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from dermaray.models.classifier import FEATURES, HEAD, MEMBER, with_features

Tensor = Any


def combine(members: Sequence[keras.Model], views: int) -> keras.Model:
    """Build the mean of classifiers over views.

    Args:
        members: What `build_classifier` built, or was loaded of it, all from one shape of pixels to the same classes.
        views: See `check_views`.

    Returns:
        A plain functional model, as `with_features` makes of one classifier: the mean of the probabilities, and the
        features of all members, each the mean over the views. Of one member and one view, that member.
    """
    if len(members) == views == 1:
        return members[0]
    pixels = keras.Input(members[0].input.shape[1:], dtype="uint8", name="image")
    seen = [view(pixels) for view in _views()[:views]]
    features: list[Tensor] = []
    probabilities: list[Tensor] = []
    for number, member in enumerate(members):
        both = with_features(member, f"{MEMBER}{number}")
        answers, seen_of_member = zip(*(both(view) for view in seen), strict=True)
        probabilities += answers
        features.append(_mean(seen_of_member, f"features_of_{number}"))
    joined = keras.layers.Concatenate(name=FEATURES)(features) if len(features) > 1 else features[0]
    return keras.Model(pixels, [_mean(probabilities, HEAD), joined], name="ensemble")


def _views() -> list[Callable[[Tensor], Tensor]]:
    straight: list[Callable[[Tensor], Tensor]] = [
        lambda x: x,
        lambda x: ops.flip(x, axis=2),
        lambda x: ops.flip(x, axis=1),
        # One axis at a time: OpenVINO knows no flip of two.
        lambda x: ops.flip(ops.flip(x, axis=2), axis=1),
    ]
    return [*straight, *(lambda x, view=view: ops.transpose(view(x), (0, 2, 1, 3)) for view in straight)]


def _mean(tensors: Sequence[Tensor], name: str) -> Tensor:
    if len(tensors) > 1:
        return keras.layers.Average(name=name)(list(tensors))
    return keras.layers.Identity(name=name)(tensors[0])
