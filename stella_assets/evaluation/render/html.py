"""The report as one HTML page, which loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Mapping

from stella_assets.core.present import data_uri, html_table
from stella_assets.core.templates import render
from stella_assets.evaluation.render.page import Page


def render_html(page: Page, plots: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        page: Its content.
        plots: PNG files by name; they become parts of the page.
    """
    from markupsafe import Markup

    tables = {name: Markup(html_table(*table)) for name, table in page.tables().items()}  # noqa: S704 (escaped there)
    # Embedded, so that the page still shows its plots when it is sent or moved.
    uris = {name: data_uri(png) for name, png in plots.items()}
    return render(__package__, "report.html.j2", **page.values(), **tables, plots=uris)
