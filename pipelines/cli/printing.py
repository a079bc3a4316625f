"""The two consoles, and how lines are printed."""

from __future__ import annotations

import sys

from rich.console import Console

# Rich takes 80 columns where there is no terminal, and would fold tables in pipes and logs.
out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, width=None if sys.stderr.isatty() else 160)


def say(text: str) -> None:
    """Print markup to standard output; a line is never broken."""
    out.print(text, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print markup to standard error; a line is never broken."""
    err.print(text, highlight=False, soft_wrap=True)
