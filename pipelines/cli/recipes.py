"""`stella recipes`: which recipes there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Column, Table

from stella_assets.core.errors import UserError
from stella_assets.pipelines.cli.console import AsJson
from stella_assets.pipelines.cli.printing import note, out, print_json, say
from stella_assets.pipelines.project import NoProjectError, recipe_files
from stella_assets.recipe import read_recipe
from stella_assets.recipe.built_in import built_in_recipes


def recipes(as_json: AsJson = False) -> None:
    """List the recipes of the project, also files with mistakes, and those that `stella init --recipe` adds."""
    try:
        own = [_row(path.stem, path) for path in recipe_files()]
    except NoProjectError as error:
        # What can be added is of interest just there.
        own = []
        note(str(error))
    built_in = [_row(name, path) for name, path in built_in_recipes().items()]
    if as_json:
        print_json({"project": own, "built_in": built_in})
        return
    _print_rows("Recipes of the project", own)
    _print_rows("Built-in; `stella init . --recipe NAME` adds one", built_in)


def _row(name: str, path: Path) -> dict[str, Any]:
    try:
        recipe, error = read_recipe(path), None
    except UserError as found:
        recipe, error = None, str(found)
    return {
        "name": name,
        # A file is found by its name, and its artefacts by the recipe's.
        "recipe": recipe.name if recipe else None,
        "description": recipe.description if recipe else None,
        "path": str(path),
        "error": error,
    }


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        say(f"{title}: none.")
        return
    table = Table(
        Column("name", no_wrap=True), "description", Column("file", overflow="fold"), title=title, title_justify="left"
    )
    for row in rows:
        path = Path(row["path"])
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        table.add_row(row["name"], row["description"] or f"cannot be used: {row['error']}", str(shown))
    out.print(table)
