"""The `stella corpus` commands: what happened to a text, the data set as a folder, and the shards that can go."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from pipelines.console import AsJson, RecipeArgument, find_recipe, make_table, out
from pipelines.resources import prepare_environment

app = typer.Typer(no_args_is_help=True, help="Ask what happened to a text, export the data set, free its shards.")


@app.command()
def why(
    recipe: RecipeArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT_OR_ID", help="A text, or its id or the first 16 digits of it.")],
    as_json: AsJson = False,
) -> None:
    """Say whether the corpus has a text, or which rule dropped it. Exit code 1 if no source has it."""
    wanted = find_recipe(recipe)
    workspace = prepare_environment()
    from stella_assets.core.step import Runner
    from stella_assets.corpus.account import why as traces_of
    from stella_assets.teachers.semantic_duplicates import semantic_duplicates_step

    alike = semantic_duplicates_step(wanted)
    traces = traces_of(wanted, text, Runner(workspace, logging.getLogger("stella")), *([alike] if alike else []))
    if as_json:
        print(json.dumps(traces, indent=1, ensure_ascii=False))
    for trace in traces if not as_json else ():
        out.print(f"[bold]{trace['what']}[/]", highlight=False)
        for name in ("id", "value", "detail", "source", "origin", "text"):
            if trace[name] not in (None, ""):
                out.print(f"  {name:7} {trace[name]}", highlight=False, markup=False, soft_wrap=True)
    if not traces:
        if not as_json:
            out.print("No source of the recipe has this text.")
        raise typer.Exit(1)


@app.command()
def export(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Option(help="A new folder.")],
    vectors: Annotated[
        list[str] | None, typer.Option(help="A teacher whose vectors go with the texts; may be given several times.")
    ] = None,
) -> None:
    """Write the data set as Parquet shards with a card, as `datasets.load_dataset` reads it."""
    wanted = find_recipe(recipe)
    workspace = prepare_environment()
    from stella_assets.core.progress import progress_bar
    from stella_assets.core.step import Runner
    from stella_assets.release.dataset import export_dataset

    with progress_bar(0, "export", "rows") as bar:
        files = export_dataset(wanted, to, vectors or [], Runner(workspace, logging.getLogger("stella")), bar.update)
    for file in files:
        out.print(f"  {file.relative_to(to)}  {file.stat().st_size / 2**20:,.1f} MiB", highlight=False)


@app.command()
def gc(dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be freed.")] = False) -> None:
    """Free the shards of texts that no recipe's current corpus is made of; they are made again when needed."""
    workspace = prepare_environment()
    from stella_assets.corpus.cleaned import live_shards
    from storage.shards import free_shards

    freed = free_shards(workspace, live_shards(workspace), dry_run=dry_run)
    out.print(make_table(freed, "Would be freed" if dry_run else "Freed", right=("files", "MiB")))
