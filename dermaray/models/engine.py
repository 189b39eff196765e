"""What runs a network on a batch of pixels, and Keras, the reference for any other."""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dermaray.decisions.arrays import Float32Array
from dermaray.images.resize import UInt8Array

if TYPE_CHECKING:
    import keras


class Engine(Protocol):
    """uint8 [N, height, width, 3] -> float32 [N, classes], each row a distribution, and float32 [N, features].

    N is at least 1: TensorFlow, for one, trips over some networks with an empty batch.
    """

    def __call__(self, pixels: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Return the network's own probabilities of a batch, and its features."""
        ...


def in_parts(engine: Engine, pixels: UInt8Array, size: int) -> tuple[Float32Array, Float32Array]:
    """Run an engine on a batch, so many images at a time at most."""
    parts = [engine(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    probabilities, features = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
    return probabilities, features


class KerasEngine:
    """A classifier's graph, run by TensorFlow.

    Args:
        model: What `build_classifier` or `combine` built.
    """

    def __init__(self, model: "keras.Model") -> None:
        import tensorflow as tf

        from dermaray.models.classifier import with_features

        both = with_features(model)
        signature = tf.TensorSpec(model.input.shape, tf.uint8)

        # With its signature stated, one trace serves every batch size.
        @tf.function(input_signature=[signature], autograph=False)  # type: ignore[untyped-decorator]
        def run(pixels: tf.Tensor) -> Any:
            return both(pixels, training=False)

        self._run = run

    def __call__(self, pixels: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Return the network's own probabilities of a batch, and its features."""
        probabilities, features = self._run(pixels)
        return np.asarray(probabilities, dtype=np.float32), np.asarray(features, dtype=np.float32)
