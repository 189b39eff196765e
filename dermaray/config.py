"""The schema of the YAML file that `dermaray train` takes, and the reader of this and of any other such file.

Every default of training is stated here alone.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from dermaray.errors import ConfigError
from dermaray.images.augment import check_recipe
from dermaray.images.spec import InputSpec
from dermaray.models.backbones import check_backbone
from dermaray.models.spec import ModelConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PerClass(_Section):
    """The class balance that draws a given number of images of every class.

    Attributes:
        n_per_class: Images of each class in an epoch: with repeats where the class has fewer, and where it has more a
            subset that is drawn anew in every epoch.
    """

    n_per_class: int = Field(ge=1)


Balance = Literal["none", "equal", "sqrt"] | PerClass
"""See `DataConfig.balance`."""


class DataConfig(_Section):
    """Which images are trained on, and how often each.

    Attributes:
        manifest: The `manifest.parquet` that `dermaray prepare` wrote.
        fold: Of a manifest made of k folds, the one to validate on, from 0; the others train. Null: the manifest's own
            splits.
        balance: `none` visits every training image once an epoch. `equal` draws every class equally often, `sqrt` in
            proportion to the square root of its number of images, both as many rows as there are images.
            `{n_per_class: 500}` draws 500 of every class. Repeats are as even as can be and differ by their
            augmentation; no copy is ever written.
    """

    manifest: str
    fold: int | None = Field(None, ge=0)
    balance: Balance = "none"


ClassWeights = Literal["none", "balanced", "sqrt"] | dict[str, Annotated[float, Field(gt=0.0, allow_inf_nan=False)]]
"""See `TrainingConfig.class_weights`."""


class TrainingConfig(_Section):
    """The optimisation.

    Attributes:
        epochs: Passes through the training plan.
        global_batch_size: Images per step, over all workers together.
        optimizer: `adam`, `adamw` or `sgd` (with momentum 0.9).
        learning_rate: Constant over the run.
        loss: `cross_entropy`, or `focal` (Lin et al. 2017, "Focal Loss for Dense Object Detection"), which counts less
            what the model already gets right. It is what training lowers; `val_loss`, by which the best epoch is
            chosen, is the cross entropy without class weights whatever is set here, so that runs can be compared.
        focal_gamma: How much less: 0 is the cross entropy. For `loss: focal` alone.
        class_weights: What an image counts in the training loss, by its class. `balanced` is inverse to the number of
            times that the class is drawn in an epoch, `sqrt` to its square root; `{nevus: 1, melanoma: 3, ...}` gives
            one weight for every class. They are scaled so that their mean over an epoch is 1.
    """

    epochs: int = Field(10, ge=1)
    global_batch_size: int = Field(32, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0.0)
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: float = Field(2.0, ge=0.0, allow_inf_nan=False)
    class_weights: ClassWeights = "none"

    @field_validator("focal_gamma")
    @classmethod
    def _gamma_has_its_loss(cls, gamma: float, info: ValidationInfo) -> float:
        # The default may stand beside any loss: a dumped configuration names every key.
        if info.data.get("loss") == "cross_entropy" and gamma != cls.model_fields["focal_gamma"].default:
            raise ValueError("only training.loss=focal has a gamma")
        return gamma


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


Model = TypeVar("Model", bound=BaseModel)


def load_yaml_config(schema: type[Model], path: Path | None, overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file, apply `key.path=value` overrides and validate the result.

    Args:
        schema: What the file must fit.
        path: The YAML file, or None: the overrides alone, over the schema's defaults.
        overrides: Each sets one key; the value is read as YAML (`training.epochs=3`, `augment=[]`).

    Raises:
        ConfigError: The file is missing or no YAML, an override is malformed, or a key or value does not fit.
    """
    values = {} if path is None else _read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path or 'the command line'}: {_first_problem(schema, error)}") from None


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a training run; see `load_yaml_config`.

    Raises:
        ConfigError: As there; or the recipe of augmentation, the backbone or one of its options is unknown.
    """
    config = load_yaml_config(RunConfig, path, overrides)
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


class _Place(NamedTuple):
    """Where in a schema pydantic found a problem: the user's keys, what the schema has there, where a union is."""

    keys: list[str]
    annotation: Any
    union: int | None


def _first_problem(schema: type[BaseModel], error: ValidationError) -> str:
    """Say in one line which key is wrong, what was received, and the nearest key where the key is unknown."""
    problems: list[Mapping[str, Any]] = [*error.errors()]
    union = _place_of(schema, problems[0]["loc"]).union
    if union is not None:
        tries = [problem for problem in problems if problem["loc"][:union] == problems[0]["loc"][:union]]
        # Some choice took the value for its own and found fault within; else none did, and all are named.
        problems = [problem for problem in tries if len(problem["loc"]) > union + 1]
        if not problems:
            wanted = dict.fromkeys(_message(schema, attempt).removeprefix("Input should be ") for attempt in tries)
            return _sentence(schema, tries[0], f"Input should be {', or '.join(wanted)}")
    section = problems[0]["loc"][:-1]
    # A key that is missing and one that is unknown are one misspelt key.
    unknown = [p for p in problems if p["type"] == "extra_forbidden" and p["loc"][:-1] == section]
    problem = (unknown or problems)[0]
    return _sentence(schema, problem, _message(schema, problem))


def _sentence(schema: type[BaseModel], problem: Mapping[str, Any], message: str) -> str:
    where = ".".join(_place_of(schema, problem["loc"]).keys)
    if problem["type"] == "extra_forbidden":
        known = list(_fields_of(_place_of(schema, problem["loc"][:-1]).annotation))
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}"
        return f"unknown key {where!r}. {hint}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    return f"{where}: {message}. Received: {problem['input']!r}" if where else message


def _message(schema: type[BaseModel], problem: Mapping[str, Any]) -> str:
    """Return pydantic's words, or plainer ones where they name a class of Python."""
    if problem["type"] == "model_type":
        return f"Input should be a mapping of {', '.join(_fields_of(_place_of(schema, problem['loc']).annotation))}"
    if problem["type"] == "dict_type":
        return "Input should be a mapping"
    return str(problem["msg"]).removeprefix("Value error, ")


def _place_of(schema: type[BaseModel], location: tuple[int | str, ...]) -> _Place:
    """Follow a location of pydantic's, in which the choice of a union that was tried is a part beside the keys."""
    keys: list[str] = []
    annotation: Any = schema
    union = None
    for depth, part in enumerate(location):
        choices = _choices(annotation)
        if len(choices) > 1:
            union = depth if union is None else union
            annotation = next((choice for choice in choices if getattr(choice, "__name__", None) == part), None)
        elif part != "[key]":
            keys.append(str(part))
            annotation = _member(choices[0], part)
    return _Place(keys, annotation, union)


def _choices(annotation: Any) -> list[Any]:
    """Return what a value may be: one annotation, or those of a union; null is not counted."""
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    return [choice for part in get_args(annotation) if part is not NoneType for choice in _choices(part)]


def _member(annotation: Any, key: int | str) -> Any:
    """Return what a section has under a key, or what a list or mapping holds."""
    if fields := _fields_of(annotation):
        return fields[str(key)].annotation if key in fields else None
    return next((part for part in reversed(get_args(annotation)) if part is not Ellipsis), None)


def _fields_of(annotation: Any) -> dict[str, FieldInfo]:
    """Return the keys of a section, which may be an optional one; none for anything else."""
    section = _choices(annotation)[0]
    return section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else {}
