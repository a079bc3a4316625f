"""Former names of commands and options: the usual error names the new one."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

COMMANDS = {"corpus why": "corpus explain"}
OPTIONS = {"--anyway": "--force"}


class CommandGroup(TyperGroup):
    """The commands, some of which had other names before."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; a former name fails with the new one."""
        named = next((name for name in (args[0], " ".join(args[:2])) if name in COMMANDS), None)
        if named is not None:
            ctx.fail(f"No such command {named!r}. Its name is now `stella {COMMANDS[named]}`.")
        former = next((word for word in args[1:] if word in OPTIONS), None)
        if former is not None:
            ctx.fail(f"No such option: {former}. Its name is now {OPTIONS[former]}.")
        return super().resolve_command(ctx, args)
