"""Which engine runs a saved model: LiteRT or OpenVINO on CPUs; Keras, the reference for them, which can use GPUs."""

from typing import Literal

from dermaray.errors import ArtifactError
from dermaray.models.artifact import INT8, LITERT, Artifact
from dermaray.models.engine import Engine

EngineName = Literal["litert", "bfloat16", "int8", "keras"]

_FILES = {"litert": LITERT, "bfloat16": LITERT, "int8": INT8}


def choose_engine(artifact: Artifact, wanted: EngineName | None) -> EngineName:
    """Return the engine that scores a model: the wanted one, else LiteRT where the network could be converted.

    Raises:
        ArtifactError: The model has no network for the wanted engine, or what runs it is not installed.
    """
    if wanted is None:
        return "litert" if LITERT in artifact.files else "keras"
    if wanted == "bfloat16":
        from dermaray.models.openvino import import_openvino

        # To be told before any process is started.
        import_openvino()
    file = _FILES.get(wanted)
    if file is not None and file not in artifact.files:
        if reason := artifact.provenance.get("unconverted", {}).get(file):
            how = f"Its network could not be converted: {reason}. Use"
        elif wanted == "int8":
            how = "Train it with int8: true, or use"
        else:
            how = "Its network could not be converted. Use"
        raise ArtifactError(f"{artifact.path} has no {file}. {how} another --engine")
    return wanted


def open_engine(artifact: Artifact, name: EngineName) -> Engine:
    """Load a model's network into an engine of this process; all but Keras take one thread.

    Raises:
        ArtifactError: The network is missing, was changed or cannot be read, what runs it is not installed, or this
            processor cannot.
    """
    if name == "keras":
        from dermaray.models.own_process import import_keras

        import_keras()
        from dermaray.models.engine import KerasEngine

        return KerasEngine(artifact.load_model())
    artifact.verify()
    file = artifact.path / _FILES[name]
    if name == "bfloat16":
        from dermaray.models.openvino import BFloat16Engine

        return BFloat16Engine(file)
    from dermaray.models.litert import LiteRTEngine

    return LiteRTEngine(file.read_bytes())
