"""`stella init`: a project of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stella_assets.pipelines.cli.console import AsJson
from stella_assets.pipelines.cli.printing import print_json, say


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder; to a project, a recipe is added.")],
    texts: Annotated[
        Path | None, typer.Option(help="Your texts: a file or a folder. Left out: a folder with examples is written.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The column of the texts, if it is not `text`.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A built-in recipe instead, e.g. demo.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the recipe. Left out: as the folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a project: a recipe with comments, and the settings of Dagster. Files that exist are never replaced."""
    from stella_assets.pipelines.scaffold import ScaffoldError, built_in_recipe, own_recipe, recipe_name, write_project

    folder = folder.absolute()
    if recipe is not None:
        if texts or column or name:
            raise ScaffoldError("--recipe: a built-in recipe has texts and a name of its own.", "Leave them out.")
        content = built_in_recipe(recipe)
    else:
        content = own_recipe(folder, name or recipe_name(folder), texts, column)
    written, made = list(write_project(folder, content)), next(iter(content)).stem
    if as_json:
        print_json({"project": folder, "recipe": made, "written": written})
        return
    for place in written:
        say(f"  {place}")
    # Short where it can be pasted as it is.
    go = "" if folder == Path.cwd() else f"cd {folder} && "
    say(f"Next: {go}stella validate {made}, then stella run {made}")
