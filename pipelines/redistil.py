"""`stella redistil`: do it all again as far as it is worth it, and what came of it each time."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.console import AsJson, RecipeArgument, err, escape, find_recipe, out, people_log
from pipelines.resources import prepare_environment

app = typer.Typer(no_args_is_help=True, help="Embed what is new, train on, and serve what passes the gate.")


@app.command()
def run(
    recipe: RecipeArgument,
    force: Annotated[bool, typer.Option("--force", help="Train although nothing, or little, is new.")] = False,
) -> None:
    """Do it now, as the schedule would. Exit code 1 if the gate is closed or it failed."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.core.step import Runner
    from stella_assets.redistil.redistil import redistil
    from storage.statistics import refresh_views

    entry = redistil(wanted, Runner(workspace, people_log()), force=force)
    refresh_views(workspace)
    out.print(escape(str(entry)), highlight=False, soft_wrap=True)
    if entry.verdict in ("rejected", "failed"):
        sys.exit(1)


@app.command()
def gc(
    recipe: RecipeArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would go.")] = False,
) -> None:
    """Let go of releases beyond those that the recipe keeps, and of what nothing rests on, as after each promotion."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.redistil.redistil import apply_retention

    for line in apply_retention(wanted, workspace, dry_run=dry_run):
        out.print(f"{'would go' if dry_run else 'let go'}: {escape(line)}", highlight=False, soft_wrap=True)


@app.command()
def log(recipe: RecipeArgument, as_json: AsJson = False) -> None:
    """Say what came of each re-distillation, a line each."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.redistil.ledger import Ledger

    entries = Ledger(workspace, wanted.name).entries()
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=1))
        return
    if not entries:
        err.print(f"{wanted.name}: was never re-distilled. `stella redistil run {recipe}` does it now.")
    for entry in entries:
        out.print(escape(str(entry)), highlight=False, soft_wrap=True)
