"""Pages and cards from templates."""

from __future__ import annotations

from typing import Any


def render(package: str, template: str, **values: Any) -> str:
    """A template of a package, filled in.

    Args:
        package: That has the folder `templates`.
        template: The file's name; values in `*.html.j2` are escaped, except `markupsafe.Markup`.
        values: What the template names.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    # Jinja's default rule goes by the last suffix, which is `.j2` here. Markdown is not escaped.
    templates = Environment(loader=PackageLoader(package), autoescape=select_autoescape(["html.j2"]), trim_blocks=True)
    return templates.get_template(template).render(**values)
