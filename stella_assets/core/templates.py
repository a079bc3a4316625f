"""Pages and cards from templates."""

from __future__ import annotations

from typing import Any

from stella_assets.core.markup import markdown_code, markdown_text


def render(package: str, template: str, **values: Any) -> str:
    """A template of a package, filled in.

    Args:
        package: That has the folder `templates`.
        template: The file's name. Values are data, and escaped: in `*.html.j2` as HTML, in `*.md.j2` as Markdown.
            What is markup already is `markupsafe.Markup`, or passes the filter `safe`; `code` makes inline code of
            Markdown. Nothing is escaped in other files.
        values: What the template names.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape
    from markupsafe import Markup

    # Jinja's default rule goes by the last suffix, which is `.j2` here. It has no rule for Markdown.
    finalize = _as_markdown if template.endswith("md.j2") else None
    templates = Environment(
        loader=PackageLoader(package), autoescape=select_autoescape(["html.j2"]), trim_blocks=True, finalize=finalize
    )
    templates.filters["code"] = lambda value: Markup(markdown_code(value))  # noqa: S704 (escaped there)
    return templates.get_template(template).render(**values)


def _as_markdown(value: Any) -> Any:
    # The protocol of `markupsafe`: what has this method is markup already.
    return value if hasattr(value, "__html__") else markdown_text(value)
