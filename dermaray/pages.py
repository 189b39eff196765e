"""Pages for a person: one file each that fetches nothing and runs nothing, all in one style."""

import re
from collections.abc import Callable
from typing import Any

import jinja2
from markupsafe import Markup, escape


def render_page(template: str, filters: dict[str, Callable[..., str]], **values: Any) -> str:
    """Return a page as HTML.

    Args:
        template: Path of a template within this package; it extends `page.html`, which has head and style.
        filters: What the template calls by name, beside `code`, for text with code between backquotes.
        values: What the template shows; all text is escaped.
    """
    environment = _environment(escaped=True)
    environment.filters.update({"code": _code, **filters})
    return environment.get_template(template).render(**values)


def render_markdown(template: str, **values: Any) -> str:
    """Return a text in Markdown; see `render_page`. The filter `cell` escapes what a table's cell may not hold."""
    environment = _environment(escaped=False)
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("<", "&lt;")
    return environment.get_template(template).render(**values)


def _code(text: str) -> Markup:
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _environment(*, escaped: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("dermaray", ""),
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
