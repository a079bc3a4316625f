"""What the `stella` commands share: the two consoles, tables, refusals, and how a recipe is found."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

from pipelines.resources import project_root, recipe_files
from stella_assets.recipe import Recipe, RecipeError, read_recipe

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of one in recipes/.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, width=None if sys.stderr.isatty() else 160)


def refuse(message: str) -> NoReturn:
    """Print what is wrong with the input, and end with exit code 2."""
    err.print(f"[bold red]error[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(2)


def people_log() -> logging.Logger:
    """A log that people read beside the output."""
    from rich.logging import RichHandler

    log = logging.Logger("stella", logging.INFO)
    log.addHandler(RichHandler(console=err, show_path=False, show_level=False, log_time_format="%H:%M:%S"))
    return log


def escape(text: str) -> str:
    """Text that Rich prints as it is."""
    from rich.markup import escape as rich_escape

    return rich_escape(text)


def find_recipe(argument: str) -> Recipe:
    """A recipe by path, or by the name that it has in `recipes/`."""
    path = Path(argument)
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        path = project_root() / "recipes" / f"{argument}.yaml"
        if not path.is_file():
            known = ", ".join(file.stem for file in recipe_files())
            raise RecipeError(
                f"{argument}: no recipe of this name; recipes/ has {known}. Give one of these, or a YAML file."
            )
    return read_recipe(path)


def make_table(rows: Sequence[Mapping[str, Any]], title: str, right: Sequence[str] = ()) -> Table | str:
    """Rows of equal keys as a table; the named columns are set to the right."""
    if not rows:
        return f"{title}: none."
    columns = [Column(name, justify="right" if name in right else "left", overflow="fold") for name in rows[0]]
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*("" if cell is None else format_cell(cell) for cell in row.values()))
    return table


def format_cell(cell: Any) -> str:
    """A figure with six digits, or text."""
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
