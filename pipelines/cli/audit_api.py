"""`stella vectors audit-api`: whether a service gives a text the same vector in any request."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stella_assets.core.errors import UserError
from stella_assets.pipelines.cli.console import AsJson, find_recipe, make_table, people_runner
from stella_assets.pipelines.cli.printing import note, out, print_json, say
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.recipe import Graph


def audit_api(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe that has the teacher.")],
    teacher: Annotated[str, typer.Option(help="A teacher of kind `api`.")],
    as_json: AsJson = False,
) -> None:
    """Send 64 fixed texts to a service in five ways, which is paid, and compare. Exit code 1 if they differ much."""
    workspace = prepare_environment()
    graph = Graph(find_recipe(recipe))
    from stella_assets.teachers.api.compositions import TEXTS, compare_compositions
    from stella_assets.teachers.api.epochs import SAME_MODEL
    from stella_assets.teachers.encode import find_teacher, open_teacher

    known = {each.name: each for each in graph.recipe.teachers if each.paid}
    if not known:
        raise UserError(f"recipe {graph.recipe.name!r}: has no teacher of kind `api`.", "Name a recipe that has one.")
    chosen = find_teacher(graph.recipe.name, known, teacher)
    model: Any = open_teacher(chosen, graph.teachers[teacher], people_runner(workspace))
    note(f"Sending {TEXTS} short texts to {chosen.name}.")
    found = compare_compositions(model)
    differs = min(each.cosine for each in found) < SAME_MODEL
    if as_json:
        print_json({"teacher": teacher, "differs": differs, "compositions": [each.__dict__ for each in found]})
    else:
        rows = [
            {"sent": each.name, "least cosine": f"{each.cosine:.8f}", "largest difference": f"{each.difference:.1e}"}
            for each in found
        ]
        out.print(make_table(rows, "Compared with the first time", right=("least cosine", "largest difference")))
        say(
            "The vector of a text depends on what is sent with it. Use another server, or `limits: {items: 1}`."
            if differs
            else "A text has the same vector in any request."
        )
    if differs:
        raise typer.Exit(1)
