"""`stella redistil`: re-run a recipe on what is new, and list the results."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from stella_assets.pipelines.cli.console import AsJson, RecipeArgument, find_recipe, people_runner
from stella_assets.pipelines.cli.printing import PeopleHandler, note, print_json, say
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.recipe import Graph

app = typer.Typer(no_args_is_help=True, help="Embed new texts, continue training, and promote what passes the gate.")


@app.command()
def run(
    recipe: RecipeArgument,
    force: Annotated[bool, typer.Option("--force", help="Train even if little or nothing is new.")] = False,
    as_json: AsJson = False,
) -> None:
    """Re-distil now, as the schedule would. Exit code 1 if the gate is closed or a step failed."""
    workspace = prepare_environment()
    graph, runner = Graph(find_recipe(recipe)), people_runner(workspace)
    from stella_assets.pipelines.launch import watched
    from stella_assets.pipelines.views import refresh_views
    from stella_assets.redistil.redistil import redistil

    # Through Dagster, so the UI shows these runs as it shows those of the schedule.
    with watched(graph, runner, PeopleHandler()) as launch:
        entry = redistil(graph, runner, make_all=launch.make_all, force=force)
    # The ledger has the entry now, so the view `redistillations` can show it.
    refresh_views(workspace)
    if as_json:
        print_json(asdict(entry))
    else:
        say(str(entry))
    if entry.verdict in ("rejected", "failed"):
        sys.exit(1)


@app.command()
def gc(
    recipe: RecipeArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete releases beyond those that the recipe keeps, and artefacts that nothing uses, as after each promotion."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.redistil.redistil import apply_retention

    lines = list(apply_retention(wanted, workspace, dry_run=dry_run))
    if as_json:
        print_json({"dry_run": dry_run, "deleted": lines})
    for line in lines if not as_json else ():
        say(f"{'would be deleted' if dry_run else 'deleted'}: {line}")


@app.command()
def log(recipe: RecipeArgument, as_json: AsJson = False) -> None:
    """List the result of each re-distillation, one line each."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.redistil.ledger import Ledger

    entries = Ledger(workspace, wanted.name).entries()
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    if not entries:
        note(f"{wanted.name}: was never re-distilled. `stella redistil run {recipe}` does it now.")
    for entry in entries:
        say(str(entry))
