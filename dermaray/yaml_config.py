"""Any YAML file that a schema describes, with overrides from the command line, and errors that name key and file."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from dermaray.errors import ConfigError
from dermaray.files import check_local

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that may be part of a path anywhere."""


Folder = Annotated[str, AfterValidator(check_local)]
"""The path of a local folder."""

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """A schema's section: keys that it does not name are refused, and values stay as they are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def load_yaml_config(
    schema: type[Model], path: Path | None, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> Model:
    """Read a YAML file, apply `key.path=value` overrides and validate the result.

    Args:
        schema: What the file must fit.
        path: The YAML file, or None: the overrides alone.
        overrides: Each sets one key; the value is read as YAML (`training.epochs=3`, `augment=[]`).
        given: What stands in place of the schema's defaults where there is no file.

    Raises:
        ConfigError: The file is missing or no YAML, an override is malformed, or a key or value does not fit.
    """
    values = copy.deepcopy(dict(given or {})) if path is None else read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    return validated(schema, values, str(path or "the command line"))


def validated(schema: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Check values against a schema.

    Args:
        schema: What they must fit.
        values: As a YAML file holds them.
        source: Where they come from, for an error.

    Raises:
        ConfigError: A key or value does not fit.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(schema, error)}") from None


def set_key(values: dict[str, Any], key: str, value: Any) -> None:
    """Set one key, given with the sections above it (`training.epochs`); missing sections are made.

    Raises:
        ConfigError: What should be a section is a value.
    """
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{key}: {parent!r} is a value, not a section")
    section[last] = value


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested sections as what `set_key` takes: `key.path` to value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value}
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: It is missing, or no such file.
    """
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
    set_key(values, key, value)


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
    # What a section as a whole refuses says so itself.
    received = "" if "Received: " in message else f". Received: {problem['input']!r}"
    return f"{where}: {message}{received}" if where else message


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
