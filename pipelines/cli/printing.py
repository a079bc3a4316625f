"""The two consoles. What is printed is data: brackets are no markup, and control characters are shown, not obeyed."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from stella_assets.core.markup import CONTROL, visible
from stella_assets.pipelines.cli.values import json_value

Part = str | tuple[str, str]
"""Text, or text with a style of Rich."""


def styled(*parts: Part) -> Text:
    """Text of which parts have a style, for lines and for the cells of tables.

    Example:
        >>> styled(("failed", "bold red"), " corpus")
    """
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((visible(text), style) for text, style in pairs))


class DataConsole(Console):
    """A console that takes every string as it is: lines, cells, titles, branches of a tree."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as text; Rich calls this for every string that it prints."""
        # A caller's `markup=True` is not followed: styles come from `styled` alone.
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False, "highlight": False})


class PeopleHandler(RichHandler):
    """Shows a log on standard error, with the time of each line."""

    def __init__(self) -> None:
        super().__init__(console=err, show_path=False, show_level=False, log_time_format="%H:%M:%S")

    def render_message(self, record: logging.LogRecord, message: str) -> Any:
        """The message of a line."""
        return super().render_message(record, visible(message))


# Without a terminal Rich assumes 80 columns, and would wrap tables in pipes and log files.
out = DataConsole(width=None if sys.stdout.isatty() else 160)
err = DataConsole(stderr=True, width=None if sys.stderr.isatty() else 160)


def say(*parts: Part) -> None:
    """Print to standard output; a line is never broken."""
    out.print(styled(*parts), soft_wrap=True)


def note(*parts: Part) -> None:
    """Print to standard error; a line is never broken."""
    err.print(styled(*parts), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print JSON to standard output; what a terminal would obey is escaped as JSON does."""
    readable = sys.stdout.encoding.lower().startswith("utf")
    # Not Rich, which would wrap lines.
    print(CONTROL.sub(_json_escape, json.dumps(json_value(value), indent=1, ensure_ascii=not readable)))


def _json_escape(found: re.Match[str]) -> str:
    return json.dumps(found.group())[1:-1]
