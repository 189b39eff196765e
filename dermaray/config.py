"""The schema of the YAML file that `dermaray train` takes. Every default of training is stated here alone."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dermaray.errors import ConfigError
from dermaray.images.augment import check_recipe
from dermaray.images.spec import InputSpec
from dermaray.models.backbones import check_backbone
from dermaray.models.spec import ModelConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which images are trained on, and how often each.

    Attributes:
        manifest: The `manifest.parquet` that `dermaray prepare` wrote.
        balance: `none` visits every training image once an epoch; `equal` draws every class equally often, with
            repeats, as many images as there are. Repeats differ by their augmentation; no copy is ever written.
    """

    manifest: str
    balance: Literal["none", "equal"] = "none"


class TrainingConfig(_Section):
    """The optimisation.

    Attributes:
        epochs: Passes through the training plan.
        global_batch_size: Images per step, over all workers together.
        optimizer: `adam`, `adamw` or `sgd` (with momentum 0.9).
        learning_rate: Constant over the run.
    """

    epochs: int = Field(10, ge=1)
    global_batch_size: int = Field(32, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0.0)


class ScalingConfig(_Section):
    """How many processes train.

    Attributes:
        num_workers: Training workers; each takes an equal part of every global batch.
        use_gpu: One GPU for each worker.
        cpus_per_worker: Logical CPUs that Ray sets aside for each worker, or null: half of the cluster's, shared among
            the workers, so that the other half decodes and augments.
    """

    num_workers: int = Field(1, ge=1)
    use_gpu: bool = False
    cpus_per_worker: float | None = Field(None, gt=0.0)


class RunConfig(_Section):
    """A whole training run.

    Attributes:
        name: Names the run and its model.
        out: The folder to write: `model/`, `config.yaml`, `history.csv`.
        seed: Weights, order and augmentation follow from it.
        augment: Augmentor operations, in order, for training images only; see `dermaray.images.augment`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    out: str
    seed: int = Field(0, ge=0, lt=2**32)
    data: DataConfig
    input: InputSpec = Field(default_factory=InputSpec)
    augment: tuple[dict[str, Any], ...] = ()
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    scaling: ScalingConfig = Field(default_factory=ScalingConfig)

    @model_validator(mode="after")
    def _batch_divides(self) -> "RunConfig":
        batch, workers = self.training.global_batch_size, self.scaling.num_workers
        if batch % workers:
            raise ValueError(
                f"training.global_batch_size must be a multiple of scaling.num_workers. Received: {batch} and {workers}"
            )
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply `key.path=value` overrides and validate the result.

    Args:
        path: The YAML file.
        overrides: Each sets one key; the value is read as YAML (`training.epochs=3`, `augment=[]`).

    Raises:
        ConfigError: The file is missing or no YAML, an override is malformed, or a key or value does not fit.
    """
    values = _read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from None
    check_recipe(config.augment)
    check_backbone(config.model.backbone, config.model.options)
    return config


def dump_config(config: RunConfig) -> str:
    """Return a configuration as YAML that `load_config` reads back to the same value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist. Ready-made configurations are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    # PyYAML lets a ValueError through for a date that cannot be.
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of keys. Received: {type(values).__name__}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"an override has the form key.path=value. Received: {override!r}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"the value of {override!r} is not YAML") from error
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{override!r}: {parent!r} is a value, not a section")
    section[last] = value


def _first_problem(error: ValidationError) -> str:
    """Say in one line which key is wrong, what was received, and the nearest key where the key is unknown."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _keys_of(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}"
        return f"unknown key {where!r}. {hint}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    received = "" if not where else f". Received: {problem['input']!r}"
    return f"{where}: {message}{received}" if where else message


def _keys_of(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the schema has at a place."""
    model: Any = RunConfig
    for part in location:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
