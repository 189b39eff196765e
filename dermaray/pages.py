"""Pages for a person: one file each that fetches nothing and runs nothing, all in one style."""

from collections.abc import Callable
from typing import Any

import jinja2


def render_page(template: str, filters: dict[str, Callable[..., str]], **values: Any) -> str:
    """Return a page as HTML.

    Args:
        template: Path of a template within this package; it extends `page.html`, which has head and style.
        filters: What the template calls by name.
        values: What the template shows; all text is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dermaray", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(**values)
