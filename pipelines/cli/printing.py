"""The two consoles, and how lines are printed."""

from __future__ import annotations

import sys

from rich.console import Console

# Without a terminal Rich assumes 80 columns, and would wrap tables in pipes and log files.
out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, width=None if sys.stderr.isatty() else 160)


def say(text: str) -> None:
    """Print markup to standard output; a line is never broken."""
    out.print(text, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print markup to standard error; a line is never broken."""
    err.print(text, highlight=False, soft_wrap=True)
