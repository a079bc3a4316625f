"""`stella release`: which release is active, and which were before."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from stella_assets.core.present import shown_time
from stella_assets.pipelines.cli.console import AsJson, RecipeArgument, find_recipe, make_table, quiet_runner
from stella_assets.pipelines.cli.printing import note, out, print_json, say
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.recipe import Graph
from stella_assets.storage.releases import Releases

app = typer.Typer(no_args_is_help=True, help="The active release and earlier ones: list, show, promote, roll back.")


@app.command(name="list")
def list_releases(recipe: RecipeArgument, as_json: AsJson = False) -> None:
    """List the releases of a recipe, the newest first."""
    releases = _releases(recipe)
    records = [releases.record(name) | {"active": name == releases.active()} for name in releases.names()]
    if as_json:
        print_json(records)
        return
    shown = [
        {
            "name": record["name"],
            "active": "yes" if record["active"] else "",
            "promoted at": shown_time(record["promoted_at"]),
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
    name: Annotated[str | None, typer.Argument(help="Left out: the active one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a release: its folder, its scores, what it was made of."""
    releases = _releases(recipe)
    name = name or releases.active()
    if name is None:
        note("Nothing was promoted yet. Run `stella release promote RECIPE`.")
        sys.exit(1)
    record, folder = releases.record(name), releases.folder(name)
    # From the release's own folder, which stays complete when its inputs were removed.
    lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
    described = {**record, "folder": str(folder), "active": name == releases.active()}
    if as_json:
        print_json({**described, "lineage": lineage})
        return
    for key, value in described.items():
        say(f"{key:<14} {value}")
    rows = [{"artefact": key, "digest": artefact["digest"][:12]} for key, artefact in lineage.items()]
    out.print(make_table(rows, "Made of"))


@app.command()
def promote(
    recipe: RecipeArgument,
    name: Annotated[str | None, typer.Option(help="Left out: its date and a part of its key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the recipe's newest release the active one, if its gate is open."""
    workspace = prepare_environment()
    graph = Graph(find_recipe(recipe))
    from stella_assets.release.promotion import NothingToPromoteError, promote_newest

    try:
        record = promote_newest(quiet_runner(workspace), release=graph.release, gate=graph.gate, name=name)
    # Exit code 1, not 2: the command was right, but the result is missing or did not pass.
    except NothingToPromoteError as error:
        note(str(error))
        sys.exit(1)
    shown = workspace.releases / graph.recipe.name / "current"
    if as_json:
        print_json({**record, "folder": shown, "active": True})
        return
    say((record["name"], "bold"), f" is active now, at {shown}")


@app.command()
def rollback(recipe: RecipeArgument, as_json: AsJson = False) -> None:
    """Make the release active again that was active before."""
    workspace, name = prepare_environment(), find_recipe(recipe).name
    from stella_assets.release.promotion import roll_back

    gone, back = roll_back(workspace, name)
    if as_json:
        print_json({"active": back, "before": gone})
        return
    say((back, "bold"), f" is active again, instead of {gone}.")


def _releases(argument: str) -> Releases:
    return Releases(prepare_environment(), find_recipe(argument).name)
