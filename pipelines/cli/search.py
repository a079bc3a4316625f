"""`stella search`: what a release finds in the corpus that it was made from."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from stella_assets.pipelines.cli.console import (
    AsJson,
    RecipeArgument,
    find_recipe,
    make_table,
    people_log,
    people_runner,
)
from stella_assets.pipelines.cli.printing import note, out, print_json
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.recipe import Graph


def search(
    recipe: RecipeArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, without a prompt.")],
    top_k: Annotated[int, typer.Option(min=1, max=10_000, help="How many texts.")] = 10,
    split: Annotated[Literal["train", "dev", "test"] | None, typer.Option(help="Only texts of this split.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the corpus texts nearest to a query with the finished release. The first search encodes the corpus."""
    workspace = prepare_environment()
    graph = Graph(find_recipe(recipe))
    runner = people_runner(workspace)
    release, corpus = runner.find(graph.release), runner.find(graph.corpus)
    if release is None or corpus is None:
        lacks = graph.release if release is None else graph.corpus
        note(f"{graph.recipe.name}: its {lacks.name} does not exist yet. Run `stella run {recipe}` first.")
        sys.exit(1)
    from stella_assets.core.progress import progress_in
    from stella_assets.release.search import ReleaseSearch, count

    texts = runner.read(graph.corpus)
    note(f"{count(texts, split):,} texts are compared; those that this release never encoded are encoded first.")
    trusted = graph.recipe.student.trust_remote_code
    searching = ReleaseSearch(release.folder, trust_remote_code=trusted, workspace=workspace, compute=runner.compute)
    with progress_in(people_log()):
        hits = searching.nearest(query, texts, top_k, split)
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    rows = [
        {
            "cosine": f"{hit.cosine:.4f}",
            "source": hit.source,
            "origin": hit.origin,
            "id": hit.id[:16],  # `stella corpus explain` takes it
            "text": " ".join(hit.text.split())[:200],
        }
        for hit in hits
    ]
    out.print(make_table(rows, "Nearest texts", right=("cosine",)))
