"""Where in an image a network sees what speaks for a class: Grad-CAM.

Selvaraju et al. 2017, "Grad-CAM: Visual explanations from deep networks via gradient-based localization". Unlike some
other such maps it follows the weights: those of a network with random weights look otherwise (Adebayo et al. 2018,
"Sanity checks for saliency maps"), which the tests check.
"""

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from dermaray.decisions.arrays import Float32Array, IntArray
from dermaray.images.resize import UInt8Array

if TYPE_CHECKING:
    import keras


_STRENGTH = 0.6
"""How much of an overlay is colour where the map is highest."""


class GradCam:
    """Explains the answers of a classifier, of any backbone that has maps of features.

    Args:
        model: What `build_classifier` built, or `combine`: then the mean of its members' maps of the image as it is.
    """

    def __init__(self, model: "keras.Model") -> None:
        import keras

        from dermaray.models.classifier import HEAD, members_of

        members = members_of(model)
        heads = [member.get_layer(HEAD) for member in members]
        self._parts = [
            (keras.Model(member.input, [_last_map(member), head.input]), head)
            for member, head in zip(members, heads, strict=True)
        ]

    def __call__(self, pixels: UInt8Array, classes: IntArray) -> Float32Array:
        """Return how much each place speaks for a class.

        Args:
            pixels: Decoded images, uint8 [N, height, width, 3].
            classes: The class of each that is to be explained, [N].

        Returns:
            float32 [N, height, width], 0 to 1: the highest of each image is 1, or all are 0 where nothing speaks for
            the class.
        """
        parts = [_scaled(_maps(*part, pixels, classes), pixels.shape[1:3]) for part in self._parts]
        return _to_one(np.sum(parts, axis=0))


def overlay(pixels: UInt8Array, heat: Float32Array) -> UInt8Array:
    """Colour an image by a map: the more speaks for the class, the redder.

    Args:
        pixels: uint8 [height, width, 3].
        heat: float32 [height, width], 0 to 1.

    Returns:
        uint8 [height, width, 3].
    """
    shades = cv2.applyColorMap(np.round(255 * heat).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = _STRENGTH * heat[..., None]
    mixed: UInt8Array = np.round((1 - share) * pixels + share * shades).astype(np.uint8)
    return mixed


def _last_map(model: "keras.Model") -> Any:
    """Return the last tensor that still has places, [batch, rows, columns, channels]."""
    import keras

    # A network within has outputs in a graph of its own.
    layers = [layer for layer in reversed(model.layers) if not isinstance(layer, keras.Model)]
    return next(layer.output for layer in layers if len(layer.output.shape) == 4)


def _maps(part: "keras.Model", head: "keras.layers.Dense", pixels: UInt8Array, classes: IntArray) -> Float32Array:
    """Return the maps at the size of the features, each with 1 as its highest value."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        features, last = part(pixels, training=False)
        logits = last @ head.kernel + head.bias
        # The log-odds of the class; from logits, since a probability may be as good as 1, with no gradient left.
        is_class = tf.one_hot(classes, head.units)
        odds = tf.reduce_sum(logits * is_class, axis=1) - tf.reduce_logsumexp(logits - 1e9 * is_class, axis=1)
    gradients = tape.gradient(odds, features)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return _to_one(np.asarray(tf.nn.relu(tf.reduce_sum(weights * features, axis=3)), np.float32))


def _to_one(maps: Float32Array) -> Float32Array:
    """Scale maps so that the highest value of each is 1, where there is one above 0."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    scaled: Float32Array = np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)
    return scaled


def _scaled(maps: Float32Array, shape: tuple[int, ...]) -> Float32Array:
    rows, columns = shape
    return np.stack([cv2.resize(one, (columns, rows), interpolation=cv2.INTER_LINEAR) for one in maps])
