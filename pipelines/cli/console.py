"""What the commands share: arguments, logs, runners, tables, and how a recipe is found."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from stella_assets.core.leases import Lease
from stella_assets.core.runner import Runner
from stella_assets.pipelines.cli.printing import PeopleHandler, note
from stella_assets.pipelines.environment import compute
from stella_assets.pipelines.project import NoProjectError, project_root, recipe_files
from stella_assets.recipe import Recipe, RecipeError, read_recipe
from stella_assets.recipe.built_in import built_in_recipes
from stella_assets.storage.workspace import Workspace


def complete_recipe(incomplete: str) -> list[str]:
    """The recipes of the project whose names begin so, for the shell; outside of a project it completes files."""
    try:
        return [file.stem for file in recipe_files() if file.stem.startswith(incomplete)]
    except NoProjectError:
        return []


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A YAML file, or the name of one in recipes/.", autocompletion=complete_recipe
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def people_log() -> logging.Logger:
    """A log that people read next to the output."""
    # Not `getLogger`, which would give every caller the handler of the first one.
    log = logging.Logger("stella", logging.INFO)
    log.addHandler(PeopleHandler())
    return log


def quiet_runner(workspace: Workspace) -> Runner:
    """A runner for commands that only look at artefacts."""
    return Runner(workspace, logging.getLogger("stella"), compute())


def people_runner(workspace: Workspace, allow_environments: bool = False) -> Runner:
    """A runner for commands that make artefacts, with a log that people read.

    Args:
        workspace: Where state is kept.
        allow_environments: Whether environments of models may be made.
    """
    return Runner(workspace, people_log(), compute(allow_environments))


def say_in_use(builds: Sequence[Lease]) -> None:
    """Say why garbage collection keeps tables and shards."""
    if builds:
        shown = ", ".join(str(build) for build in builds[:3])
        more = f" and {len(builds) - 3} more" if len(builds) > 3 else ""
        note(f"Tables and shards are kept: {shown}{more} is being made, or was interrupted in the last days.")


def find_recipe(argument: str) -> Recipe:
    """A recipe by its path, or by its name in `recipes/`.

    Args:
        argument: As it was written on the command line.

    Raises:
        RecipeError: There is no such recipe, or it cannot be run.
    """
    path = Path(argument)
    # A file without the suffix counts as well; a missing file with one is reported by `read_recipe`.
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        path = project_root() / "recipes" / f"{argument}.yaml"
        if not path.is_file():
            known = ", ".join(file.stem for file in recipe_files()) or "none"
            remedy = "Give one of these, or a YAML file."
            if argument in built_in_recipes():
                remedy = f"`stella init {path.parents[1]} --recipe {argument}` adds the built-in recipe of this name."
            raise RecipeError(f"{argument}: no recipe has this name; recipes/ has {known}.", remedy)
    return read_recipe(path)


def make_table(rows: Sequence[Mapping[str, Any]], title: str, right: Sequence[str] = ()) -> Table | str:
    """Rows as a table.

    Args:
        rows: All have the same keys, which become the header.
        title: Printed above the table.
        right: Columns that are aligned to the right.

    Returns:
        A table, or one line where there are no rows.
    """
    if not rows:
        return f"{title}: none."
    # Folded, not cut: digests and paths are copied from the terminal.
    columns = [Column(name, justify="right" if name in right else "left", overflow="fold") for name in rows[0]]
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(format_cell(cell) for cell in row.values()))
    return table


def format_cell(cell: Any) -> str | Text:
    """A figure with six digits, text that is printed as it is, or what `styled` made."""
    if isinstance(cell, Text):
        return cell
    return "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)
