"""The group of all commands: former names, for which the usual error names the new one, and Ctrl-C."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from stella_assets.pipelines.cli.printing import note

INTERRUPTED = 130
"""The exit code that shells give to a command that SIGINT ended."""
COMMANDS = {"corpus why": "corpus explain"}
OPTIONS = {"--anyway": "--force"}


class CommandGroup(TyperGroup):
    """The commands, some of which had other names before."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Ctrl-C is not a bug, and nothing is to be corrected: what was made so far is kept."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # typer would end without a word
            note("Stopped. Run the same command again to continue where it stopped.")
            raise typer.Exit(INTERRUPTED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; a former name fails with the new one."""
        named = next((name for name in (args[0], " ".join(args[:2])) if name in COMMANDS), None)
        if named is not None:
            ctx.fail(f"No such command {named!r}. Its name is now `stella {COMMANDS[named]}`.")
        former = next((word for word in args[1:] if word in OPTIONS), None)
        if former is not None:
            ctx.fail(f"No such option: {former}. Its name is now {OPTIONS[former]}.")
        return super().resolve_command(ctx, args)
