"""The networks of `keras.applications`, each with the preprocessing that it was trained with."""

import sys
from typing import TYPE_CHECKING, Any

from dermaray.errors import ArtifactError

if TYPE_CHECKING:
    import keras

Tensor = Any

# Listed, since to ask Keras takes seconds; a test compares.
# fmt: off
APPLICATIONS = (
    "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge", "DenseNet121",
    "DenseNet169", "DenseNet201", "EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3",
    "EfficientNetB4", "EfficientNetB5", "EfficientNetB6", "EfficientNetB7", "EfficientNetV2B0",
    "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3", "EfficientNetV2L", "EfficientNetV2M",
    "EfficientNetV2S", "InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "MobileNetV3Large",
    "MobileNetV3Small", "NASNetLarge", "NASNetMobile", "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2",
    "ResNet50", "ResNet50V2", "VGG16", "VGG19", "Xception",
)
# fmt: on

_DIVIDED_ONCE_MORE = tuple(f"EfficientNetB{size}" for size in range(8))
_IMAGENET_STDDEV = (0.229, 0.224, 0.225)


def application(pixels: Tensor, name: str) -> Tensor:
    """Build a network without its classes, up to its pooled features.

    Args:
        pixels: uint8 [batch, height, width, 3].
        name: One of `APPLICATIONS`.

    Raises:
        ArtifactError: The network does not take images of this size.
    """
    import keras

    build = getattr(keras.applications, name)
    # Some normalise by this function, which then is part of the graph; the others do so within, and it does nothing.
    preprocess = sys.modules[build.__module__].preprocess_input
    floats = keras.layers.Rescaling(1.0, name="to_float")(pixels)
    try:
        network = build(include_top=False, weights=None, input_tensor=preprocess(floats), pooling="avg")
    except ValueError as error:
        raise ArtifactError(f"keras.applications.{name} cannot be built for {pixels.shape[1:]}: {error}") from error
    return network.output


def load_imagenet(model: "keras.Model", name: str) -> None:
    """Put ImageNet's weights into a model that `application` built; Keras fetches them once and keeps them.

    Raises:
        ArtifactError: They cannot be fetched.
    """
    import keras

    from dermaray.models.weights import derive_constants

    try:
        trained = getattr(keras.applications, name)(include_top=False, weights="imagenet", pooling="avg")
    # Keras raises a plain Exception where its download fails.
    except Exception as error:
        raise ArtifactError(
            f"the ImageNet weights of {name} could not be fetched: {error}. "
            "Name a file with model.weights=PATH, or use efficientnet_lite0, whose weights can be installed"
        ) from error
    model.set_weights(trained.get_weights())
    if name in _DIVIDED_ONCE_MORE:
        # Only with ImageNet's weights does Keras divide by the root of these once more; here it is in the variance.
        (normalization,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
        normalization.adapt_variance.assign(normalization.adapt_variance * _IMAGENET_STDDEV)
    derive_constants(model)
