"""The kernels of a LiteRT graph kept as int8, where `round_weights` has rounded them so, and as float16 elsewhere.

The converter knows int8 only as what a graph computes with. Here the graph makes float32 of its kernels, which XNNPACK
and OpenVINO do once, when it is loaded, and computes what it did before.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from dermaray.decisions.arrays import Float32Array
from dermaray.models.rounding import LARGEST

_FEWEST = 1024
"""Weights of a kernel that is worth the change."""

_NEAR = 1e-3
"""How far from a whole number of steps a weight may lie. What was folded into it has changed its last digits."""


def pack_weights(content: bytes) -> bytes:
    """Return a float32 graph with its kernels in fewer bits.

    Args:
        content: A LiteRT file.

    Returns:
        Another one. What are whole numbers of a step for each channel are so as before, but for the last digits of
        float32; others are rounded to float16.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    opcode = _dequantize(model)
    for graph in model.subgraphs:
        made = [_operator(opcode, _pack(model, graph, kernel, axis), kernel) for kernel, axis in _kernels(model, graph)]
        graph.operators = [*made, *graph.operators]
    # Once all are packed: several tensors may have had one.
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {part.buffer for part in model.metadata or ()}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _kernels(model: Any, graph: Any) -> list[tuple[int, int]]:
    """Return the numbers of the tensors that hold kernels in float32, and of each the axis of its channels."""
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator, TensorType

    axes = {
        BuiltinOperator.CONV_2D: 0,
        BuiltinOperator.DEPTHWISE_CONV_2D: 3,
        BuiltinOperator.FULLY_CONNECTED: 0,
    }
    found = {}
    for operator in graph.operators:
        axis = axes.get(model.operatorCodes[operator.opcodeIndex].builtinCode)
        if axis is not None:
            tensor = graph.tensors[operator.inputs[1]]
            data = model.buffers[tensor.buffer].data
            if tensor.type == TensorType.FLOAT32 and data is not None and np.prod(tensor.shape) >= _FEWEST:
                found[int(operator.inputs[1])] = axis
    return list(found.items())


def _steps(kernel: Float32Array, axis: int) -> tuple[npt.NDArray[np.int8], Float32Array] | None:
    """Return the kernel as int8 and the step of each channel, or None where it is no such thing.

    The largest weight of a channel is 64 to 127 steps: a step is little more than what makes it 127, times what was
    folded into the channel. Of these the one is taken with which all weights are whole numbers.
    """
    moved = np.moveaxis(kernel, axis, 0)
    channels = moved.reshape(len(moved), -1)
    largest = np.abs(channels).max(1, keepdims=True)
    steps = np.where(largest > 0, largest, 1) / np.arange(LARGEST // 2 + 1, LARGEST + 1, dtype=np.float32)
    off = np.stack([_off(channels, step[:, None]) for step in steps.T], 1)
    best = off.argmin(1)
    rows = np.arange(len(channels))
    if off[rows, best].max() > _NEAR:
        return None
    step = steps[rows, best]
    counts = np.rint(channels / step[:, None]).astype(np.int8).reshape(moved.shape)
    return np.moveaxis(counts, 0, axis), step


def _off(channels: Float32Array, step: Float32Array) -> Float32Array:
    """Return of each channel how far from a whole number of steps a weight lies at most."""
    counts = channels / step
    off: Float32Array = np.abs(counts - np.rint(counts)).max(1)
    return off


def _pack(model: Any, graph: Any, number: int, axis: int) -> int:
    """Add a tensor with the values of another in fewer bits, of which that has none of its own then.

    Returns:
        Its number.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    tensor, packed = graph.tensors[number], schema.TensorT()
    kernel = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.float32).reshape(tensor.shape)
    if found := _steps(kernel, axis):
        values, packed.type = found[0].tobytes(), schema.TensorType.INT8
        packed.quantization = schema.QuantizationParametersT()
        packed.quantization.scale = found[1]
        packed.quantization.zeroPoint = np.zeros(len(found[1]), np.int64)
        packed.quantization.quantizedDimension = axis
    else:
        values, packed.type = kernel.astype(np.float16).tobytes(), schema.TensorType.FLOAT16
    packed.name, packed.shape = tensor.name + b"_packed", tensor.shape
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values, np.uint8)
    model.buffers.append(buffer)
    packed.buffer, tensor.buffer = len(model.buffers) - 1, 0
    graph.tensors.append(packed)
    return len(graph.tensors) - 1


def _dequantize(model: Any) -> int:
    """Add the operation that makes float32 of them, and return its number."""
    from tensorflow.lite.python import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    # The first that knows a step for each channel.
    code.version = 5
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _operator(opcode: int, source: int, target: int) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = opcode, [source], [target]
    made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.DequantizeOptions, schema.DequantizeOptionsT()
    return made
