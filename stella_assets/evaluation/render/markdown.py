"""The report in Markdown, with its plots as files next to it."""

from __future__ import annotations

from stella_assets.core.present import markdown_table
from stella_assets.evaluation.render.page import Page


def render_markdown(page: Page) -> str:
    """The report.

    Args:
        page: Its content.
    """
    from jinja2 import Environment, PackageLoader

    templates = Environment(
        loader=PackageLoader("stella_assets.evaluation.render"),
        autoescape=False,  # noqa: S701 (it is Markdown)
        trim_blocks=True,
    )
    tables = {name: markdown_table(*table) for name, table in page.tables().items()}
    return templates.get_template("report.md.j2").render(**page.values(), **tables)
