"""What turns a batch of pixels into probabilities. One engine so far: Keras, the reference for any other."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from dermaray.images.resize import UInt8Array
from dermaray.models.artifact import Artifact

Float32Array = npt.NDArray[np.float32]


class Engine(Protocol):
    """uint8 [N, height, width, 3] -> float32 [N, classes], each row a distribution."""

    def __call__(self, pixels: UInt8Array) -> Float32Array:
        """Return the class probabilities of a batch."""
        ...


class KerasEngine:
    """The saved graph, run by TensorFlow.

    Raises:
        ArtifactError: The model cannot be read.
    """

    def __init__(self, artifact: Artifact) -> None:
        import tensorflow as tf

        model = artifact.load_model()
        signature = tf.TensorSpec([None, *artifact.input_spec.shape], tf.uint8)

        # With its signature stated, one trace serves every batch size.
        @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
        def run(pixels: tf.Tensor) -> tf.Tensor:
            return model(pixels, training=False)

        self._run = run

    def __call__(self, pixels: UInt8Array) -> Float32Array:
        """Return the class probabilities of a batch; of an empty one, an empty array."""
        return np.asarray(self._run(pixels), dtype=np.float32)
