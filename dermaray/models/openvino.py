"""bfloat16: the graph that LiteRT runs, computed with half the bits by processors that have instructions for it.

These (AVX512-BF16, AMX) multiply twice as many numbers at a time as those for float32, to three digits; sums stay
float32. LiteRT does not use them; OpenVINO does, which comes with the extra `openvino`. Answers differ by some
thousandths, as they do by LiteRT's rounding of weights, and not by hundredths as with int8.
"""

from pathlib import Path
from typing import Any

import numpy as np

from dermaray.decisions.arrays import Float32Array
from dermaray.errors import ArtifactError
from dermaray.images.resize import UInt8Array
from dermaray.models.own_process import import_without

_TOGETHER = 4
"""Images that the graph is compiled for, as many at a time as are fastest; a batch is filled up with black ones."""

_SETTINGS = {
    "INFERENCE_PRECISION_HINT": "bf16",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    # Each of several processes would take the same core.
    "ENABLE_CPU_PINNING": False,
}

_WANTED = "--engine bfloat16 wants. Use another --engine"


class BFloat16Engine:
    """A converted graph, run by OpenVINO in bfloat16 on one thread.

    Args:
        file: What `to_litert` returned, not in int8.

    Raises:
        ArtifactError: OpenVINO is not installed or does not know an operation of the graph, or this processor has no
            instructions for bfloat16.
    """

    def __init__(self, file: Path) -> None:
        core = import_openvino().Core()
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ArtifactError(f"this processor has neither AVX512-BF16 nor AMX, which {_WANTED}")
        try:
            model = core.read_model(file)
        # It says so of whatever it does not know.
        except RuntimeError as error:
            why = str(error).strip().splitlines()[-1]
            raise ArtifactError(f"OpenVINO cannot read {file} ({why}), which {_WANTED}") from error
        shape = model.input(0).partial_shape
        shape[0] = _TOGETHER
        model.reshape(shape)
        self._run = core.compile_model(model, "CPU", _SETTINGS).create_infer_request()

    def __call__(self, pixels: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Return the network's own probabilities of a batch, and its features."""
        starts = range(0, len(pixels), _TOGETHER)
        filled = np.zeros((len(starts) * _TOGETHER, *pixels.shape[1:]), np.uint8)
        filled[: len(pixels)] = pixels
        parts = [self._outputs(filled[start : start + _TOGETHER]) for start in starts]
        probabilities, features = (np.concatenate(outputs)[: len(pixels)] for outputs in zip(*parts, strict=True))
        return probabilities, features

    def _outputs(self, pixels: UInt8Array) -> tuple[Float32Array, Float32Array]:
        outputs = self._run.infer({0: pixels}, share_inputs=True)
        return outputs[0], outputs[1]


def import_openvino() -> Any:
    """Import OpenVINO.

    Raises:
        ArtifactError: It is not installed.
    """
    try:
        # With the one that is not wanted it tells its makers of every import.
        return import_without("openvino", "openvino_telemetry")
    except ImportError:
        raise ArtifactError(
            f"OpenVINO is not installed, which {_WANTED}, or run: pip install 'dermaray[openvino]'"
        ) from None
