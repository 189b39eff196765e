"""bfloat16: the graph that LiteRT runs, computed with half the bits by processors that have instructions for it.

These (AVX512-BF16, AMX) multiply at least twice as many numbers at a time as those for float32, each to two or three
digits. LiteRT does not use them; OpenVINO does, which comes with the extra `openvino`. Answers differ by some
hundredths, as with int8, which has to be made with the model, where this takes the file that is there.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dermaray.decisions.arrays import Float32Array
from dermaray.errors import ArtifactError
from dermaray.images.resize import UInt8Array
from dermaray.models.engine import in_parts
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
        if not knows_bfloat16():
            name = core.get_property("CPU", "FULL_DEVICE_NAME")
            raise ArtifactError(
                f"--engine bfloat16 needs a processor with AVX512-BF16 or AMX. This one has neither: {name}. Use "
                "another --engine, litert for one"
            )
        try:
            model = core.read_model(file)
            shape = model.input(0).partial_shape
            shape[0] = _TOGETHER
            model.reshape(shape)
            self._run = core.compile_model(model, "CPU", _SETTINGS).create_infer_request()
        # OpenVINO raises nothing more specific.
        except RuntimeError as error:
            *_, why = str(error).strip().splitlines() or [type(error).__name__]
            raise ArtifactError(f"OpenVINO cannot run {file}: {why} Use another --engine, litert for one") from error

    def __call__(self, pixels: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """Return the network's own probabilities of a batch, and its features."""
        return in_parts(self._outputs, pixels, _TOGETHER)

    def _outputs(self, pixels: UInt8Array) -> tuple[Float32Array, Float32Array]:
        count = len(pixels)
        if count < _TOGETHER:
            pixels = np.concatenate([pixels, np.zeros((_TOGETHER - count, *pixels.shape[1:]), np.uint8)])
        outputs = self._run.infer({0: pixels}, share_inputs=True)
        return outputs[0][:count], outputs[1][:count]


def knows_bfloat16() -> bool:
    """Tell whether OpenVINO is there, and this processor has instructions for bfloat16 that it uses."""
    if find_spec("openvino") is None:
        return False
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_openvino() -> Any:
    """Import OpenVINO, without what reports to its makers that it was imported.

    Raises:
        ArtifactError: It is not installed, or damaged.
    """
    try:
        return import_without("openvino", "openvino_telemetry")
    except ImportError as error:
        raise ArtifactError(
            f"--engine bfloat16 needs OpenVINO, which cannot be imported: {error}. Run: pip install "
            "'dermaray[openvino]', or use another --engine"
        ) from None
