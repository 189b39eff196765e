"""The weights that a run starts from: whose they are, and what that model has seen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermaray.config import RunConfig
from dermaray.data.manifest import Manifest
from dermaray.errors import ArtifactError, LeakError
from dermaray.evaluation.checks import check_unseen
from dermaray.files import sha256_file
from dermaray.models.artifact import DESCRIPTION, SEEN_SCHEMA, Artifact, open_artifact, unseen
from dermaray.models.spec import ModelConfig


@dataclass(frozen=True)
class Start:
    """What a model keeps of the weights that its training started from.

    Attributes:
        provenance: `name`, `version`, `digest` and `provenance` of their model, or `file` alone where they are no
            model's; empty where they are no file's.
        trained_on: The images that they were trained on, rows of `SEEN_SCHEMA`.
        decided_on: Those that chose them, without the former.
    """

    provenance: dict[str, Any]
    trained_on: pa.Table
    decided_on: pa.Table


def start_of(config: ModelConfig) -> Start:
    """Return what is known of a run's first weights."""
    nobody = SEEN_SCHEMA.empty_table()
    if config.weights in ("none", "imagenet"):
        return Start({}, nobody, nobody)
    model = _model_of(Path(config.weights))
    if model is None:
        return Start({"file": config.weights}, nobody, nobody)
    told = {"name": model.name, "version": model.version, "digest": model.digest, "provenance": model.provenance}
    trained_on = model.trained_on()
    return Start(told, trained_on, unseen(model.decided_on(), trained_on))


def check_start(config: RunConfig, manifest: Manifest, *, allow: bool) -> list[str]:
    """Refuse to start from a model that was trained on what the run is validated, or will be measured, on.

    Args:
        config: The run.
        manifest: Its data.
        allow: Let it pass all the same.

    Returns:
        What was found, for the record; empty unless `allow`.

    Raises:
        LeakError: It was, and `allow` is false.
        ArtifactError: The file is not the one that its model describes.
    """
    model = _model_of(Path(config.model.weights))
    if model is None:
        return []
    # Each of the folds' images validates what the others train.
    held_out = ("val", "test") if config.folds is None else ("train", "val", "test")
    splits = manifest.table["split"].to_pylist()
    images = manifest.table.filter(pa.array([split in held_out for split in splits]))
    known = check_unseen(model, images, manifest.source_name, allow=True)
    found = [f"its first weights know what is held out here ({', '.join(held_out)}): {one}" for one in known]
    if found and not allow:
        raise LeakError(f"model.weights: a run would be flattered, since {'; '.join(found)}. --allow-leaks permits it")
    return found


def _model_of(weights: Path) -> Artifact | None:
    """Return the model whose file these weights are, or None.

    Raises:
        ArtifactError: A model lies beside them that has such a file, and it is another.
    """
    if not (weights.parent / DESCRIPTION).is_file() or not weights.is_file():
        return None
    model, digest = open_artifact(weights.parent), sha256_file(weights)
    if model.files.get(weights.name, digest) != digest:
        raise ArtifactError(f"{weights} is not the file that artifact.json describes: their SHA-256 differ")
    return model if digest in model.files.values() else None
