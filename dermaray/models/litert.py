"""LiteRT: the same graph as a file of its own, which small devices run, and CPUs faster than TensorFlow does.

Weights are stored as float16, or as int8 where they have been rounded to that, and computed with as float32. Batch
normalisation is folded into them before float16 rounds them, so answers differ from those of Keras by some thousandths.
With int8 for values as well it is faster still, and differs by some hundredths.
"""

from typing import TYPE_CHECKING

from dermaray.decisions.arrays import Float32Array
from dermaray.images.resize import UInt8Array
from dermaray.models.engine import in_parts
from dermaray.models.packed import pack_weights
from dermaray.models.spec import WeightsAs

if TYPE_CHECKING:
    import keras

_TOGETHER = 4
"""Images that the graph is run on at a time. What a layer makes of few is still in the cache for the next one, which
saves a tenth of the time against 32; answers are the same to the bit."""


def to_litert(model: "keras.Model", samples: UInt8Array | None = None, weights_as: WeightsAs = "float16") -> bytes:
    """Convert a classifier.

    Args:
        model: What `build_classifier` or `combine` built.
        samples: Images, uint8 [N, height, width, 3], from which ranges of values are taken to compute with int8; None
            for float32.
        weights_as: What its weights have been rounded to; int8 is kept as that, anything else as float16.

    Returns:
        A LiteRT file: uint8 [batch, height, width, 3] to probabilities [batch, classes] and features [batch, features].
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from dermaray.models.classifier import with_features

    both = with_features(model)
    signature = tf.TensorSpec(model.input.shape, tf.uint8)
    function = tf.function(lambda x: both(x, training=False), input_signature=[signature], autograph=False)
    # The converter does not find the variables of a Keras 3 model by itself.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if samples is None and weights_as == "int8":
        return pack_weights(bytes(converter.convert()))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if samples is None:
        converter.target_spec.supported_types = [tf.float16]
    else:
        converter.representative_dataset = lambda: ([image[None]] for image in samples)
    return bytes(converter.convert())


class LiteRTEngine:
    """A converted graph, run by LiteRT.

    Args:
        content: What `to_litert` returned.
        threads: How many CPU threads it takes.
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = sorted(self._interpreter.get_output_details(), key=lambda output: output["name"])
        self._outputs = [output["index"] for output in outputs]
        self._batch = 0

    def __call__(self, pixels: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Return the network's own probabilities of a batch, and its features."""
        return in_parts(self._run, pixels, _TOGETHER)

    def _run(self, pixels: UInt8Array) -> tuple[Float32Array, Float32Array]:
        if len(pixels) != self._batch:
            self._interpreter.resize_tensor_input(self._input, pixels.shape)
            self._interpreter.allocate_tensors()
            self._batch = len(pixels)
        self._interpreter.set_tensor(self._input, pixels)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._outputs[0]), self._interpreter.get_tensor(self._outputs[1])
