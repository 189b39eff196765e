"""Several models as one, which answers with their mean; or one model with other decisions or more views."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from dermaray.config import RunConfig
from dermaray.data.manifest import Manifest
from dermaray.decisions.settings import DecisionConfig
from dermaray.errors import ConfigError
from dermaray.models.artifact import SEEN_SCHEMA, Artifact, unseen
from dermaray.models.spec import Version, WeightsAs, check_views
from dermaray.yaml_config import Name, Section, load_yaml_config


class EnsembleConfig(Section):
    """What is made of the models; of a single one all but `name` and `version` is as it was by default.

    Attributes:
        name: Names the result.
        version: See `RunConfig.version`.
        views: See `RunConfig.views`; those of the models themselves do not count.
        weights_as: See `RunConfig.weights_as`. What the models themselves were rounded to stays, and does not count.
        int8: See `RunConfig.int8`.
        decisions: See `RunConfig.decisions`.
    """

    name: Name = "ensemble"
    version: Version = "1"
    views: Literal[1, 2, 4, 8] = 1
    weights_as: WeightsAs = "float32"
    int8: bool = False
    decisions: DecisionConfig = Field(default_factory=DecisionConfig)


def ensemble_config(artifacts: Sequence[Artifact], overrides: Sequence[str]) -> EnsembleConfig:
    """Return what is made of models: of a single one what it is already, but for the overrides.

    Raises:
        ConfigError: See `load_yaml_config`.
    """
    made = artifacts[0].provenance["config"] if len(artifacts) == 1 else {}
    given = {name: made[name] for name in ("views", "weights_as", "int8", "decisions") if name in made}
    return load_yaml_config(EnsembleConfig, None, overrides, given)


def check_members(artifacts: Sequence[Artifact], config: EnsembleConfig) -> None:
    """Check that models can be one.

    Args:
        artifacts: At least one.
        config: What is made of them.

    Raises:
        ConfigError: They take different input or know different classes, or their input has not so many views.
    """
    first = artifacts[0]
    for other in artifacts[1:]:
        if other.label_set.classes != first.label_set.classes:
            raise ConfigError(f"{other.path} knows other classes than {first.path}: an ensemble needs the same")
        if other.input_spec != first.input_spec:
            raise ConfigError(f"{other.path} takes other input than {first.path}: an ensemble needs the same")
    check_views(config.views, first.input_spec.height, first.input_spec.width)


def write_ensemble(
    out: Path,
    artifacts: Sequence[Artifact],
    manifest: Manifest,
    config: EnsembleConfig,
    *,
    leaks: Sequence[str] = (),
    run: RunConfig | None = None,
) -> Artifact:
    """Make one model of several, with decisions of its own, fitted on the connected Ray.

    Args:
        out: The folder, which is made.
        artifacts: See `check_members`.
        manifest: Its `val` split, on which decisions are fitted, must hold no image that a member was trained on.
        config: What is made of them.
        leaks: What leaks into that split, where the user wants the model in spite of it; kept with it.
        run: The training run that made the members, if one made all.
    """
    from dermaray.models.classifier import members_of
    from dermaray.models.ensemble import combine
    from dermaray.models.saving import Origin
    from dermaray.training.finish import write_model

    members = [member for artifact in artifacts for member in members_of(artifact.load_model())]
    trained_on = _once([artifact.trained_on() for artifact in artifacts])
    chosen_on = _once([artifact.decided_on() for artifact in artifacts])
    origin = Origin(
        config.name,
        config.version,
        artifacts[0].input_spec,
        manifest.label_set,
        _provenance(artifacts, manifest, config, leaks, run),
        trained_on,
        # Of folds, each is validated on what the others are trained on.
        unseen(chosen_on, trained_on),
    )
    return write_model(out, combine(members, config.views), origin, manifest, config)


def _once(images: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of tables of `SEEN_SCHEMA`, each once; an image that is known by several names has several."""
    return pa.concat_tables(images).group_by(SEEN_SCHEMA.names, use_threads=False).aggregate([])


def _provenance(
    artifacts: Sequence[Artifact],
    manifest: Manifest,
    config: EnsembleConfig,
    leaks: Sequence[str],
    run: RunConfig | None,
) -> dict[str, Any]:
    of_members = {leak for artifact in artifacts for leak in artifact.provenance.get("leaks", [])}
    return {
        "config": config.model_dump(mode="json"),
        "run": None if run is None else run.model_dump(mode="json"),
        "members": [
            {"name": a.name, "version": a.version, "digest": a.digest, "provenance": a.provenance} for a in artifacts
        ],
        "data": manifest.description(),
        "leaks": sorted(of_members | set(leaks)),
    }
