"""The schema of the YAML file that `dermaray tune` takes: which keys of a training configuration to vary, and how."""

import copy
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from dermaray.config import RunConfig, make_config
from dermaray.errors import ConfigError
from dermaray.yaml_config import Folder, Name, Section, flat, load_yaml_config, read_yaml, set_key

Bounds = tuple[float, float]

_SAME_FOR_ALL = (
    *("name", "out", "data.manifest", "data.fold"),
    # ASHA decides how many of them a trial has.
    "training.epochs",
    # It compares losses, which are on images of one size then.
    *("training.small_epochs", "training.small_scale"),
    # They decide nothing of what a run computes, or how its trained network is made use of.
    *("scaling", "ingest", "checkpoint", "tracking", "data.licence"),
    *("version", "decisions", "views", "weights_as", "int8", "folds", "members"),
)
_MOST_COMBINATIONS = 1000


class Range(Section):
    """The values that a key may take; one of these.

    Attributes:
        uniform: Any number between two.
        log_uniform: The same, as likely below the geometric mean as above it; both greater than 0.
        integer: Any whole number from one up to another, both included.
        choice: One of a list, whatever YAML can say.
    """

    uniform: Bounds | None = None
    log_uniform: Bounds | None = None
    integer: tuple[int, int] | None = None
    choice: tuple[Any, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_and_ordered(self) -> "Range":
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            kinds = ", ".join(type(self).model_fields)
            raise ValueError(f"one of {kinds} is needed. Received: {', '.join(given) or 'none'}")
        bounds = self.uniform or self.log_uniform or self.integer
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"the first number must be below the second. Received: {list(bounds)}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform takes numbers greater than 0. Received: {list(self.log_uniform)}")
        return self

    def examples(self) -> Sequence[Any]:
        """Return values that it takes: both ends and one with many digits between them, or all of a list."""
        if self.choice is not None:
            return self.choice
        if self.integer is not None:
            return self.integer
        low, high = self.uniform or self.log_uniform or (0.0, 0.0)
        return (low, low + (high - low) * 0.6180339887, high)

    def holds(self, value: Any) -> bool:
        """Tell whether a value lies in the range."""
        if self.choice is not None:
            return value in self.choice
        bounds = self.uniform or self.log_uniform or self.integer
        return bounds is not None and isinstance(value, int | float) and bounds[0] <= value <= bounds[1]


class TuneConfig(Section):
    """A search for better values of some keys.

    Attributes:
        name: Names the search.
        out: The folder to write: `best.yaml`, `trials.csv`, `trials.png`.
        train: The training configuration to improve; a path beside this file, or an absolute one.
        fixed: Keys of it that have other values in every trial, as `{training.epochs: 12}`.
        search: The keys to vary, as `{training.learning_rate: {log_uniform: [0.0001, 0.01]}}`.
        trials: How many sets of values to try. The first are those of `train` itself, where they lie in the ranges; of
            `model.options` it has to name them.
        concurrent: Trials at a time.
        grace_epochs: Epochs that every trial has; then ASHA (Li et al. 2020, "A System for Massively Parallel
            Hyperparameter Tuning") goes on with the better ones alone.
        reduction_factor: At each stage it goes on with one in this many trials.
        seed: Decides which values are tried.
    """

    name: Name
    out: Folder
    train: str
    fixed: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, Range] = Field(min_length=1)
    trials: int = Field(12, ge=1)
    concurrent: int = Field(1, ge=1)
    grace_epochs: int = Field(2, ge=1)
    reduction_factor: int = Field(3, ge=2)
    seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("fixed")
    @classmethod
    def _by_key(cls, fixed: dict[str, Any]) -> dict[str, Any]:
        # A section would replace the whole one of the training configuration, keys that it does not name included.
        return flat(fixed)

    @field_validator("search", mode="before")
    @classmethod
    def _range_by_key(cls, search: Any) -> Any:
        return _ranges(search) if isinstance(search, dict) else search


def _ranges(sections: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return ranges by key, those that the command line has put into sections, at the dots of a key, as well."""
    found: dict[str, Any] = {}
    for key, value in sections.items():
        is_section = isinstance(value, dict) and value and all(isinstance(within, dict) for within in value.values())
        found |= _ranges(value, f"{above}{key}.") if is_section else {f"{above}{key}": value}
    return found


class Search:
    """A search, with the configuration that it starts from.

    Args:
        config: What the file says.
        train: The training configuration that it names, as YAML holds it.

    Attributes:
        config: As given.
        base: The training run without any key changed by a trial.

    Raises:
        ConfigError: The training configuration with `fixed` keys is wrong.
    """

    def __init__(self, config: TuneConfig, train: dict[str, Any]) -> None:
        self.config, self._train = config, train
        # Trials run in folders of their own, and would look for a file of weights there.
        self._folder = Path.cwd()
        self.base = self.run_config({})

    def run_config(self, values: Mapping[str, Any], **changes: str) -> RunConfig:
        """Return the run of a trial.

        Args:
            values: By key; see `TuneConfig.search`.
            changes: Further keys of the top level, with their values.

        Raises:
            ConfigError: A key is unknown or a value does not fit.
        """
        return self._made({**self.config.fixed, **values, **changes})

    @property
    def full_epochs(self) -> int:
        """How many epochs the training configuration has by itself, however few trials have."""
        fixed = {key: value for key, value in self.config.fixed.items() if key != "training.epochs"}
        try:
            return self._made(fixed).training.epochs
        # It fits the epochs of trials alone.
        except ConfigError:
            return self.base.training.epochs

    def _made(self, values: Mapping[str, Any]) -> RunConfig:
        run = copy.deepcopy(self._train)
        for key, value in values.items():
            set_key(run, key, value)
        model = run.get("model")
        if isinstance(model, dict) and model.get("weights", "none") not in ("none", "imagenet"):
            model["weights"] = str(self._folder / str(model["weights"]))
        return make_config(run, self.config.train)

    def starts(self) -> list[RunConfig]:
        """Return a run for each `model.weights` that trials start from, none of them of several models."""
        own = self.config.search.get("model.weights")
        runs = [self.base] if own is None else [self.run_config({"model.weights": name}) for name in own.examples()]
        return [run.model_copy(update={"folds": None, "members": None}) for run in runs]

    def first(self) -> dict[str, Any] | None:
        """Return the base's own values of the keys that are varied, or None where there are some `outside`."""
        return None if self.outside() else {key: self._value(key) for key in self.config.search}

    def outside(self) -> list[str]:
        """Return the varied keys whose value in the base no trial may have, or which are options it does not name."""
        return [key for key, values in self.config.search.items() if not values.holds(self._value(key))]

    def _value(self, key: str) -> Any:
        # As written: the base names a file of weights by its whole path.
        given = {**flat(self._train), **self.config.fixed}
        if key in given:
            return given[key]
        value: Any = self.base.model_dump(mode="json")
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def load_search(path: Path, overrides: Sequence[str] = ()) -> Search:
    """Read the configuration of a search; see `load_yaml_config`.

    Raises:
        ConfigError: As there; or the training configuration is wrong, a range does not fit its key, or ranges do not
            fit each other.
    """
    config = load_yaml_config(TuneConfig, path, overrides)
    search = Search(config, read_yaml(path.parent / config.train))
    for key, values in config.search.items():
        if any(f"{key}.".startswith(f"{same}.") or same.startswith(f"{key}.") for same in _SAME_FOR_ALL):
            raise ConfigError(f"{path}: search.{key} must be the same for all trials. Set it under fixed, if at all")
        for value in values.examples():
            try:
                search.run_config({key: value})
            except ConfigError as error:
                raise ConfigError(f"{path}: search.{key} tries {json.dumps(value)}. {error}") from error
    for trial in _combinations(config.search):
        try:
            search.run_config(trial)
        except ConfigError as error:
            told = ", ".join(f"{key}={json.dumps(value)}" for key, value in trial.items())
            raise ConfigError(f"{path}: no trial can have {told}. {error}") from error
    return search


def _combinations(ranges: Mapping[str, Range]) -> Iterator[dict[str, Any]]:
    """Yield what trials may try: all combinations of examples, or a thousand of them."""
    examples = [values.examples() for values in ranges.values()]
    drawn: Iterable[tuple[Any, ...]] = product(*examples)
    if math.prod(map(len, examples)) > _MOST_COMBINATIONS:
        rng = random.Random(0)
        drawn = (tuple(map(rng.choice, examples)) for _ in range(_MOST_COMBINATIONS))
    for values in drawn:
        yield dict(zip(ranges, values, strict=True))
