"""`stella study`: compare settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stella_assets.pipelines.cli.console import AsJson, RecipeArgument, find_recipe, make_table, people_runner
from stella_assets.pipelines.cli.printing import PeopleHandler, note, out, print_json, say
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.recipe import Graph
from stella_assets.study import STUDY_ASSET


def study(
    recipe: RecipeArgument,
    grid: Annotated[
        list[str],
        typer.Option(help="PATH=VALUE,VALUE; several make a product. `*` is every stage, `x3` multiplies."),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    each: Annotated[
        bool, typer.Option("--each", help="Change one path at a time, in addition to the recipe as it is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare settings: run the recipe's variants with several seeds, as partitions, and write table and plots."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.recipe.preflight import check_recipe
    from stella_assets.study.variants import derive, read_grid

    variants = read_grid(grid, seeds, each=each)
    # All of them before the first run: a mistake in the last one would otherwise show after hours.
    for variant in variants:
        check_recipe(derive(wanted, variant), workspace)
    from stella_assets.pipelines.cli.failures import stop_if_failed
    from stella_assets.pipelines.launch import watched
    from stella_assets.pipelines.views import refresh_views
    from stella_assets.study.study import JSON_FILE

    outcomes = []
    with watched(Graph(wanted), people_runner(workspace), PeopleHandler()) as launch:
        for number, variant in enumerate(variants, 1):
            note((f"{number} of {len(variants)}", "bold"), f": {variant.name}")
            # A failing variant does not stop the others; the exit code counts all.
            outcomes.append(launch.study(variant))
        compared = launch.compare_study()
    refresh_views(workspace)
    if compared.succeeded:
        folder = workspace.current(wanted.name, STUDY_ASSET)
        _print_study(json.loads((folder / JSON_FILE).read_text(encoding="utf-8")), folder, as_json)
    stop_if_failed([*outcomes, compared], workspace)


def _print_study(found: Any, folder: Path, as_json: bool) -> None:
    from stella_assets.study.compare import table_rows

    if as_json:
        print_json(found)
        return
    header, rows = table_rows(found)
    out.print(make_table([dict(zip(header, row, strict=True)) for row in rows], "Variants", right=header[1:]))
    say(f"  report   {folder}/study.html")
    say("  SQL      stella sql 'SELECT * FROM study'")
