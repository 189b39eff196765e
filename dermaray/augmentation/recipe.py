"""Recipes: lists of Augmentor's operations, as YAML has them."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dermaray.augmentation import colour, distortion, geometry
from dermaray.augmentation.operation import Operation
from dermaray.errors import ConfigError

OPERATIONS: dict[str, type[Operation]] = {
    operation.name: operation
    for operation in sorted(
        (*colour.OPERATIONS, *distortion.OPERATIONS, *geometry.OPERATIONS), key=lambda operation: operation.name
    )
}
"""What a recipe may name: the methods of `Augmentor.Pipeline` that add an operation, and `hsv_shifting`."""


def parse_recipe(recipe: Sequence[Mapping[str, Any]]) -> list[Operation]:
    """Return a recipe's operations, checked.

    Args:
        recipe: One mapping per operation: `operation` is a key of `OPERATIONS`, the others are the arguments of
            Augmentor's method of that name, `probability` among them.

    Raises:
        ConfigError: An operation or argument is unknown, an argument is missing, or a value is out of its range.
    """
    return [_parse_step(step) for step in recipe]


def _parse_step(step: Mapping[str, Any]) -> Operation:
    if not isinstance(step, Mapping):
        raise ConfigError(f"augment: a step is a mapping with the key 'operation'. Received: {step!r}")
    arguments = {str(key): value for key, value in step.items()}
    name = arguments.pop("operation", None)
    if not isinstance(name, str) or name not in OPERATIONS:
        near = difflib.get_close_matches(str(name), OPERATIONS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Augmentor has: {', '.join(OPERATIONS)}"
        raise ConfigError(f"augment: operation {name!r} is unknown. {hint}")
    try:
        return OPERATIONS[name](**arguments)
    except ValidationError as error:
        raise ConfigError(f"augment: {name}{_problem(OPERATIONS[name], error)}") from None


def _problem(operation: type[Operation], error: ValidationError) -> str:
    problems = error.errors()
    # An argument that is missing and one that is unknown are one misspelt argument.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    argument = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return f" has no argument {argument!r}. It takes: {', '.join(operation.model_fields)}"
    if problem["type"] == "missing":
        return f" needs {argument!r}. It takes: {', '.join(operation.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f": {argument}: {message}. Received: {problem['input']!r}" if argument else f": {message}"
