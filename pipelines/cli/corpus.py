"""`stella corpus`: what happened to a text, the data set as a folder, and shards that are no longer used."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stella_assets.pipelines.cli.console import (
    AsJson,
    RecipeArgument,
    find_recipe,
    make_table,
    quiet_runner,
    say_in_use,
)
from stella_assets.pipelines.cli.printing import out, print_json, say
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.recipe import Graph

app = typer.Typer(no_args_is_help=True, help="What happened to a text, the data set as a folder, unused shards.")


@app.command()
def explain(
    recipe: RecipeArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT_OR_ID", help="A text, its id, or 16 digits of its id.")],
    as_json: AsJson = False,
) -> None:
    """Say whether the corpus has a text, or which rule dropped it. Exit code 1 if no source has it."""
    workspace = prepare_environment()
    graph = Graph(find_recipe(recipe))
    # After the recipe was found: a misspelt name is reported before heavy libraries are loaded.
    from stella_assets.corpus.account import explain as explain_text

    found = explain_text(
        text,
        runner=quiet_runner(workspace),
        clean=graph.recipe.corpus.clean,
        cleaned=graph.cleaned,
        corpus=graph.corpus,
        # A step that can drop a text after the corpus was built; the recipe need not have it.
        later=[step for step in (*graph.teachers.values(), graph.semantic_duplicates) if step],
    )
    traces = [asdict(trace) for trace in found]
    if as_json:
        print_json(traces)
    for trace in traces if not as_json else ():
        say((trace["what"], "bold"))
        for name in ("id", "value", "detail", "source", "origin", "text"):
            if trace[name] not in (None, ""):
                say(f"  {name:7} {trace[name]}")
    if not traces:
        if not as_json:
            say("No source of the recipe has this text.")
        raise typer.Exit(1)


@app.command()
def export(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Option(help="A new folder.")],
    vectors: Annotated[
        list[str] | None, typer.Option(help="A teacher whose vectors are exported, too; may be given several times.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the data set as Parquet shards with a card, as `datasets.load_dataset` reads it."""
    workspace = prepare_environment()
    graph = Graph(find_recipe(recipe))
    from stella_assets.core.progress import progress_bar
    from stella_assets.release.dataset import DatasetInputs, export_dataset

    inputs = DatasetInputs(
        description=graph.recipe.description,
        recipe_digest=graph.recipe.digest,
        corpus=graph.corpus,
        vectors=graph.teachers,
        contamination=graph.contamination,
    )
    with progress_bar(0, "export", "rows") as bar:
        files = list(export_dataset(inputs, to, vectors or [], quiet_runner(workspace), bar.update))
    if as_json:
        print_json({"folder": to.absolute(), "files": files})
        return
    for file in files:
        say(f"  {file.relative_to(to)}  {file.stat().st_size / 2**20:,.1f} MiB")


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the shards of texts that are not part of any recipe's current corpus; they are made again when needed."""
    workspace = prepare_environment()
    from stella_assets.release.alive import collecting, needed_shards
    from stella_assets.storage.shards import free_shards

    with collecting(workspace) as builds:
        say_in_use(builds)
        freed = free_shards(workspace, partial(needed_shards, workspace), dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "deleted": freed})
        return
    out.print(make_table(freed, "Would be deleted" if dry_run else "Deleted", right=("files", "MiB")))
