"""`stella release`: which release is served, and which were before."""

from __future__ import annotations

import json
import logging
import sys
from typing import Annotated

import typer
from storage.workspace import Workspace

from pipelines.console import AsJson, RecipeArgument, err, escape, find_recipe, make_table, out
from pipelines.resources import prepare_environment
from stella_assets.recipe import Recipe
from storage.releases import Releases

app = typer.Typer(no_args_is_help=True, help="What is served, and what was: list, show, promote, roll back.")


@app.command(name="list")
def list_releases(recipe: RecipeArgument, as_json: AsJson = False) -> None:
    """List the releases of a recipe, the newest first."""
    releases = _releases(recipe)
    records = [releases.record(name) | {"served": name == releases.current()} for name in releases.names()]
    if as_json:
        print(json.dumps(records, indent=1))
        return
    shown = [
        {
            "name": record["name"],
            "served": "now" if record["served"] else "",
            "promoted at": record["promoted_at"].replace("T", " ").removesuffix("+00:00"),
            "mean": f"{record['mean_score']:.2f}",
            "digest": record["digest"][:12],
            "after": record["previous"] or "",
        }
        for record in records
    ]
    out.print(make_table(shown, "Releases", right=("mean",)))


@app.command()
def show(
    recipe: RecipeArgument,
    name: Annotated[str | None, typer.Argument(help="Left out: the one that is served.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a release: its folder, its scores, what it was made of."""
    releases = _releases(recipe)
    name = name or releases.current()
    if name is None:
        err.print("Nothing was promoted yet. Run `stella release promote RECIPE`.")
        sys.exit(1)
    record, folder = releases.record(name), releases.folder(name)
    lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
    about = {**record, "folder": str(folder), "served": name == releases.current()}
    if as_json:
        print(json.dumps({**about, "lineage": lineage}, indent=1))
        return
    for key, value in about.items():
        out.print(f"{key:<14} {escape(str(value))}", highlight=False, soft_wrap=True)
    rows = [{"artefact": key, "digest": artefact["digest"][:12]} for key, artefact in lineage.items()]
    out.print(make_table(rows, "Made of"))


@app.command()
def promote(
    recipe: RecipeArgument,
    name: Annotated[str | None, typer.Option(help="Left out: the date and a part of the key.")] = None,
) -> None:
    """Serve the recipe's newest release from now on, if its gate is open."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.core.step import Runner
    from stella_assets.release.promote import NothingToServeError, promote_newest

    try:
        record = promote_newest(wanted, Runner(workspace, logging.getLogger("stella")), name)
    except NothingToServeError as error:
        err.print(escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(1)
    shown = workspace.releases / wanted.name / "current"
    out.print(f"[bold]{record['name']}[/] is served now, at {escape(str(shown))}", highlight=False, soft_wrap=True)


@app.command()
def rollback(recipe: RecipeArgument) -> None:
    """Serve again what was served before."""
    gone, back = _releases(recipe).roll_back()
    out.print(f"[bold]{back}[/] is served again, instead of {gone}.", highlight=False)


def _releases(argument: str) -> Releases:
    workspace: Workspace = prepare_environment()
    recipe: Recipe = find_recipe(argument)
    return Releases(workspace, recipe.name)
