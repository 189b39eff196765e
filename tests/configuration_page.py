"""python -m tests.configuration_page   writes docs/configuration.md, from the docstrings where the defaults stand.

`tests/unit/test_configuration_page.py` asks whether the page is what would be written now.
"""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dermaray.config import RunConfig
from dermaray.data.settings import PrepareConfig
from dermaray.training.search import Range, TuneConfig

PAGE = Path(__file__).resolve().parents[1] / "docs/configuration.md"

_HEAD = """# Configuration

Every key of the YAML files, with its default and what it means. On the command line a key is changed by its path, which
takes what YAML takes: `training.epochs=30`, `'augment=[]'`, `'data.balance={n_per_class: 500}'` (quoted, for the
shell's sake). A key that is unknown is refused, with the nearest that is known. The `config.yaml` of a finished run
names all of them.
"""

_FILES = {
    "Training": ("What `dermaray train --config` and `dermaray preview --config` take.", RunConfig),
    "Preparing": ("What `dermaray prepare --config` takes.", PrepareConfig),
    "Searching": ("What `dermaray tune --config` takes; keys of `search` are those of the training.", TuneConfig),
    "A range of a search": ("The values of `search`.", Range),
}


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for title, (what, schema) in _FILES.items():
        parts.append(f"\n## {title}\n\n{what}\n")
        parts.extend(_tables(schema, ""))
    return "".join(parts)


def _tables(schema: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield the table of a section's own keys, then those of the sections in it."""
    meanings = _meanings(schema)
    sections = {name: field.annotation for name, field in schema.model_fields.items() if _is_section(field)}
    rows = [
        f"| `{prefix}{name}` | {_default(field)} | {meanings[name]}{_choices(field, meanings[name])} |\n"
        for name, field in schema.model_fields.items()
        if name not in sections
    ]
    yield "".join(["\n| key | default | |\n| --- | --- | --- |\n", *rows])
    for name, section in sections.items():
        assert section is not None
        yield f"\n### {prefix}{name}\n\n{_before_attributes(section)}\n"
        yield from _tables(section, f"{prefix}{name}.")


def _is_section(field: FieldInfo) -> bool:
    return inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel)


def _default(field: FieldInfo) -> str:
    """Return a key's default as YAML has it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{json.dumps(value, default=list)}`" if not isinstance(value, str) else f"`{value}`"


def _meanings(schema: type[BaseModel]) -> dict[str, str]:
    """Return what a docstring says of each attribute, a line each."""
    _, _, attributes = (inspect.getdoc(schema) or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).replace("|", "\\|") for name, text in entries}


def _choices(field: FieldInfo, meaning: str) -> str:
    """Return what a key may be, where its meaning does not tell."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if all(f"`{choice}`" in meaning for choice in choices if choice != field.default):
        return ""
    return f" One of {', '.join(f'`{choice}`' for choice in choices)}."


def _before_attributes(schema: type[BaseModel]) -> str:
    return (inspect.getdoc(schema) or "").partition("Attributes:")[0].strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
