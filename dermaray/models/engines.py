"""Which engine runs a saved model: LiteRT on CPUs; Keras, which is the reference for it, and can use GPUs."""

from typing import Literal, get_args

from dermaray.errors import ArtifactError
from dermaray.models.artifact import LITERT, Artifact
from dermaray.models.engine import Engine

EngineName = Literal["litert", "keras"]

ENGINES: tuple[EngineName, ...] = get_args(EngineName)


def choose_engine(artifact: Artifact, wanted: EngineName | None) -> EngineName:
    """Return the engine that scores a model: the wanted one, else LiteRT where the network could be converted.

    Raises:
        ArtifactError: The model has no network for the wanted engine.
    """
    converted = LITERT in artifact.files
    if wanted == "litert" and not converted:
        raise ArtifactError(f"{artifact.path} has no {LITERT}: its network could not be converted. Use --engine keras")
    return wanted or ("litert" if converted else "keras")


def open_engine(artifact: Artifact, name: EngineName) -> Engine:
    """Load a model's network into an engine of this process; LiteRT takes one thread.

    Raises:
        ArtifactError: The network is missing, was changed or cannot be read.
    """
    if name == "litert":
        from dermaray.models.litert import LiteRTEngine

        artifact.verify()
        return LiteRTEngine((artifact.path / LITERT).read_bytes())
    from dermaray.models.own_process import import_keras

    import_keras()
    from dermaray.models.engine import KerasEngine

    return KerasEngine(artifact.load_model())
