"""`stella search`: what a release, or a retriever of the recipe, finds in the corpus that it was made from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stella_assets.core.errors import UserError
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

if TYPE_CHECKING:
    from stella_assets.core.runner import Runner
    from stella_assets.core.step import Step
    from stella_assets.release.search import Hit

Split = Literal["train", "dev", "test"]


class SearchError(UserError):
    """A search that the recipe cannot do."""


def search(
    recipe: RecipeArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, without a prompt.")],
    top_k: Annotated[int, typer.Option(min=1, max=10_000, help="How many texts.")] = 10,
    split: Annotated[Split | None, typer.Option(help="Only texts of this split.")] = None,
    retriever: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A retriever of the recipe: one with vectors searches the documents of its index, a reranker ranks "
            "the first that the release finds.",
        ),
    ] = None,
    index: Annotated[bool, typer.Option("--index", help="Ask the retriever's index, not every document.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the corpus texts nearest to a query with the finished release. The first search encodes the corpus."""
    if not query.strip():
        raise SearchError(f"QUERY {query!r}: nothing to look for.", "Give some words.")
    workspace = prepare_environment()
    graph = Graph(find_recipe(recipe))
    runner = people_runner(workspace)
    hits: Sequence[Any]
    if retriever is None:
        measure, hits = "cosine", _by_release(graph, runner, recipe, query, top_k, split)
    else:
        measure, hits = "score", _by_retriever(graph, runner, recipe, retriever, query, top_k, split, index)
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    rows = [
        {
            measure: f"{getattr(hit, measure):.4f}",
            "source": hit.source,
            "origin": hit.origin,
            "id": hit.id[:16],  # `stella corpus explain` takes it
            "text": " ".join(hit.text.split())[:200],
        }
        for hit in hits
    ]
    out.print(make_table(rows, "Nearest texts", right=(measure,)))


def _by_release(graph: Graph, runner: Runner, recipe: str, query: str, top: int, split: Split | None) -> list[Hit]:
    _require(runner, recipe, graph.release, graph.corpus)
    from stella_assets.core.progress import progress_in
    from stella_assets.release.search import ReleaseSearch, count

    texts, release = runner.read(graph.corpus), runner.require(graph.release)
    note(f"{count(texts, split):,} texts are compared; those that this release never encoded are encoded first.")
    searching = ReleaseSearch(
        release.folder,
        trust_remote_code=graph.recipe.student.trust_remote_code,
        workspace=runner.workspace,
        compute=runner.compute,
    )
    with progress_in(people_log()):
        return searching.nearest(query, texts, top, split)


def _by_retriever(
    graph: Graph, runner: Runner, recipe: str, name: str, query: str, top: int, split: Split | None, use_index: bool
) -> Sequence[Any]:
    from stella_assets.release.retrievers.search import find_by_tokens, rerank

    if name not in graph.retrievers:
        raise SearchError(
            f"--retriever {name}: recipe {graph.recipe.name!r} has no such retriever.",
            f"It has {', '.join(graph.retrievers) or 'none'}.",
        )
    (settings,) = (each for each in graph.recipe.retrievers if each.name == name)
    token_index = graph.retriever_indexes.get(name)
    if token_index is None:
        if use_index:
            raise SearchError(f"--index: {name!r} has no vectors, and so no index.", "Leave it out.")
        hits = _by_release(graph, runner, recipe, query, max(top, settings.reranks or 0), split)
        _require(runner, recipe, graph.retrievers[name])
        return rerank(query, hits, runner.read(graph.retrievers[name]).load(runner.compute), top)
    indexed = settings.indexed_split
    if split not in (None, indexed):
        where = f"documents of {indexed!r} only" if indexed else "all documents"
        raise SearchError(f"--split {split}: {name!r} searches {where}.", "Leave it out.")
    _require(runner, recipe, token_index, graph.retrievers[name], graph.corpus)
    found = runner.read(token_index)
    note(f"{len(found):,} {'held-out ' if indexed else ''}documents are searched.")
    loaded = runner.read(graph.retrievers[name]).load(runner.compute)
    return find_by_tokens(query, found, loaded, runner.read(graph.corpus), top, exact=not use_index)


def _require(runner: Runner, recipe: str, *steps: Step[Any]) -> None:
    """End where something was not made yet, and name the command that makes it."""
    for step in steps:
        if runner.find(step) is None:
            note(f"{step.recipe}: its {step.name} does not exist yet. Run `stella run {recipe}` first.")
            sys.exit(1)
