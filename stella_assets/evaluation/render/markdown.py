"""The report in Markdown, with its plots as files next to it."""

from __future__ import annotations

from stella_assets.core.markup import markdown_table
from stella_assets.core.templates import render
from stella_assets.evaluation.render.page import Page


def render_markdown(page: Page) -> str:
    """The report.

    Args:
        page: Its content.
    """
    tables = {name: markdown_table(*table) for name, table in page.tables().items()}
    return render(__package__, "report.md.j2", **page.values(), **tables)
