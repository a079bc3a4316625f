"""The `stella` command. Exit codes: 0 done, 1 a run failed or a result is missing, 2 the input cannot be used."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from storage.workspace import Workspace

from pipelines.console import AsJson, RecipeArgument, err, escape, find_recipe, format_cell, make_table, out, refuse
from pipelines.corpus import app as corpus_app
from pipelines.lineage import app as lineage_app
from pipelines.redistil import app as redistil_app
from pipelines.release import app as release_app
from pipelines.reproduce import reproduce
from pipelines.resources import check_postgres, prepare_environment, project_root
from pipelines.vectors import app as vectors_app
from stella_assets.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil a small text-embedding model from several big ones, with lineage that can be trusted.",
)
app.add_typer(corpus_app, name="corpus")
app.add_typer(vectors_app, name="vectors")
app.add_typer(release_app, name="release")
app.add_typer(lineage_app, name="lineage")
app.command()(reproduce)
app.add_typer(redistil_app, name="redistil")


class TableFormat(StrEnum):
    """How `stella sql` prints."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def main() -> None:
    """Run the command; mistakes in the input end in a message and exit code 2."""
    try:
        app()
    except ValueError as error:
        refuse(str(error))
    except PermissionError as error:
        refuse(f"{error.filename}: no permission. Allow it, or set STELLA_HOME to a folder of your own.")
    except KeyboardInterrupt:
        err.print("Stopped. Run the same command again to go on where it stopped.")
        sys.exit(1)


@app.command()
def run(
    recipe: RecipeArgument,
    select: Annotated[
        list[str] | None, typer.Option(help="Only this asset and what it rests on; may be given several times.")
    ] = None,
) -> None:
    """Make what the recipe describes. What exists already is reused, and a killed run goes on where it stopped."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.recipe.preflight import check_recipe

    check_recipe(wanted, workspace)
    from pipelines.materialise import materialise

    started = time.monotonic()
    outcome = materialise(wanted, workspace, select or [], err)
    for asset, check, found in outcome.failed_checks:
        err.print(f"[bold yellow]check failed[/] {asset} {check}: {escape(found)}", highlight=False, soft_wrap=True)
    if not outcome.succeeded:
        for asset, message in outcome.failures:
            err.print(f"[bold red]failed[/] {escape(asset)}: {escape(message)}", highlight=False, soft_wrap=True)
        err.print(f"Run {outcome.run_id[:8]}; `stella ui` shows its log. What was made so far is kept.")
        sys.exit(2 if outcome.users_fault else 1)
    if select:
        out.print(f"\n[bold]{wanted.name}[/]: the selected assets are there after {time.monotonic() - started:.1f} s.")
    else:
        _print_summary(wanted, workspace, time.monotonic() - started)


def _print_summary(recipe: Recipe, workspace: Workspace, seconds: float) -> None:
    summary = _summary(recipe, workspace)
    out.print(f"\n[bold]{recipe.name}[/] is complete after {seconds:.1f} s.")
    if summary is not None:
        _print_scores(summary)
    folder = workspace.root / recipe.name
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    out.print(f"  report   {shown}/evaluation_report/report.html", highlight=False, soft_wrap=True)
    out.print(f"  model    {shown}/release", highlight=False, soft_wrap=True)
    out.print("  SQL      stella sql 'SELECT * FROM scores'", highlight=False)
    out.print("  UI       make ui", highlight=False)


def _summary(recipe: Recipe, workspace: Workspace) -> dict[str, Any] | None:
    import logging

    from stella_assets.core.step import Runner
    from stella_assets.evaluation.report import read_summary, report_step

    artefact = Runner(workspace, logging.getLogger("stella")).find(report_step(recipe))
    return None if artefact is None else read_summary(artefact)


def _print_scores(summary: dict[str, Any]) -> None:
    from stella_assets.evaluation import tables

    for header, rows in (tables.score_rows(summary), tables.retention_rows(summary)):
        table = Table(*header)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*row)
        out.print(table)
    gain = summary["gain"]
    low, high = gain["interval"]
    out.print(f"Gain over the untouched student: {gain['value']:+.2f} points (95%: {low:+.2f} to {high:+.2f}).")


@app.command()
def study(
    recipe: RecipeArgument,
    grid: Annotated[
        list[str],
        typer.Option(help="PATH=VALUE,VALUE; several make a product. `*` is every stage, `x3` multiplies."),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    each: Annotated[
        bool, typer.Option("--each", help="Change one path at a time, beside the recipe as it is.")
    ] = False,
) -> None:
    """Compare settings: run the recipe's variants with several seeds, as partitions, and write table and plots."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.recipe.preflight import check_recipe
    from stella_assets.study.variants import derive, read_grid

    variants = read_grid(grid, seeds, each=each)
    for variant in variants:
        check_recipe(derive(wanted, variant), workspace)
    from pipelines.materialise import materialise_study

    outcomes = materialise_study(wanted, workspace, variants, err)
    for variant, outcome in zip(variants, outcomes, strict=False):
        for asset, message in outcome.failures:
            shown = f"{variant.name}, {asset}: {message}"
            err.print(f"[bold red]failed[/] {escape(shown)}", highlight=False, soft_wrap=True)
    folder = workspace.root / wanted.name / "study"
    if outcomes[-1].succeeded:
        out.print((folder / "study.md").read_text(encoding="utf-8"), highlight=False, soft_wrap=True)
        out.print(f"  report   {folder}/study.html", highlight=False, soft_wrap=True)
        out.print("  SQL      stella sql 'SELECT * FROM study'", highlight=False)
    if not all(outcome.succeeded for outcome in outcomes):
        sys.exit(1)


@app.command()
def status(recipe: RecipeArgument) -> None:
    """Say which artefacts of the recipe are there, and which the next run would make."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    import logging

    from stella_assets.core.step import Runner, all_steps
    from stella_assets.release.publish import release_step

    runner = Runner(workspace, logging.getLogger("stella"))
    table = Table(Column("asset", no_wrap=True), "state", "digest", "made at", "seconds", "MiB")
    for step in all_steps(release_step(wanted)):
        artefact = runner.find(step)
        if artefact is not None:
            about = artefact.manifest.run_info
            made = str(about["made_at"]).replace("T", " ").removesuffix("+00:00")
            table.add_row(
                step.name,
                "[green]there[/]",
                artefact.digest[:12],
                made,
                f"{about['seconds']:.1f}",
                str(about["peak_memory_mib"]),
            )
        else:
            waits = [need.name for need in step.needs if runner.find(need) is None]
            state = f"waits for {waits[0]}" if waits else "would be made"
            table.add_row(step.name, f"[yellow]{state}[/]", "", "", "", "")
    out.print(table)


@app.command()
def plan(recipe: RecipeArgument, as_json: AsJson = False) -> None:
    """Say what the next run would make, why, and how long it would take by the speeds of past runs."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    import logging

    from stella_assets.core.step import Runner
    from stella_assets.lineage.plan import plan as make_plan

    planned = make_plan(wanted, Runner(workspace, logging.getLogger("stella")))
    if as_json:
        print(json.dumps([asset.__dict__ for asset in planned], indent=1))
        return
    made = [asset for asset in planned if asset.state == "made"]
    rows = [
        {
            "asset": asset.asset,
            "because": "\n".join(asset.because),
            "work": asset.work,
            "seconds": "?" if asset.seconds is None else f"{asset.seconds:,.0f}",
        }
        for asset in made
    ]
    if rows:
        out.print(make_table(rows, f"{wanted.name}: would be made", right=("seconds",)))
    unknown = sum(asset.seconds is None for asset in made)
    seconds = sum(asset.seconds or 0 for asset in made)
    more = f", without {unknown} of which no past run tells" if unknown else ""
    there = f"{len(planned) - len(made)} of {len(planned)} artefacts are there"
    out.print(f"{there}; the others take some {seconds:,.0f} s{more}." if made else f"{there}.", highlight=False)


@app.command()
def report(recipe: RecipeArgument, as_json: AsJson = False) -> None:
    """Print scores and retention of the recipe's current models."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    summary = _summary(wanted, workspace)
    if summary is None:
        err.print(f"{wanted.name}: there is no report for this recipe as it stands. Run `stella run {recipe}` first.")
        sys.exit(1)
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        _print_scores(summary)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(metavar="SQL", help="For example: SELECT * FROM vector_stats")],
    output: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.TABLE,
    vectors: Annotated[
        str | None, typer.Option(metavar="RECIPE[@TAG]", help="Also the table `vectors` of this snapshot.")
    ] = None,
) -> None:
    """Ask DuckDB about corpus, vectors, training and scores; also while a run is in progress."""
    workspace = prepare_environment()
    import duckdb

    from storage.sql import connect_vectors
    from storage.statistics import refresh_views

    views = refresh_views(workspace)
    recipe, _, tag = (vectors or "").partition("@")
    with (
        connect_vectors(workspace, recipe, tag or None)
        if recipe
        else duckdb.connect(str(views), read_only=True) as connection
    ):
        try:
            result = connection.execute(query)
        except duckdb.Error as error:
            refuse(f"{error}\nViews: {', '.join(row[0] for row in connection.execute('SHOW TABLES').fetchall())}")
        names = [column[0] for column in result.description or []]
        rows = result.fetchall()
    _print_rows(names, rows, output)


def _print_rows(names: list[str], rows: list[tuple[Any, ...]], output: TableFormat) -> None:
    match output:
        case TableFormat.JSON:
            print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1, default=str))
        case TableFormat.CSV:
            import csv

            writer = csv.writer(sys.stdout)
            writer.writerow(names)
            writer.writerows(rows)
        case TableFormat.TABLE:
            table = Table(*names)
            for row in rows:
                table.add_row(*("" if cell is None else format_cell(cell) for cell in row))
            out.print(table)


@app.command()
def validate(recipe: RecipeArgument) -> None:
    """Check a recipe, its files, models and dimensions, without running anything."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.recipe.preflight import check_recipe

    dims = check_recipe(wanted, workspace)
    target = f"{dims} dimensions" if dims else "dimensions that its hub models will tell"
    out.print(
        f"{wanted.name}: valid. {len(wanted.corpus.sources)} sources, {len(wanted.teachers)} teachers with {target}, "
        f"{len(wanted.stages)} stages. Digest {wanted.digest}."
    )


@app.command()
def pools(
    limits: Annotated[list[str] | None, typer.Argument(metavar="POOL=LIMIT", help="As training=2.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show, or set, how many steps of a pool run at once, over all runs: of encoding and of training."""
    workspace = prepare_environment()
    from pipelines.materialise import pool_limits

    found = pool_limits(workspace, limits or [])
    if as_json:
        print(json.dumps(found))
    else:
        out.print(
            make_table([{"pool": name, "limit": limit or "none"} for name, limit in found.items()], "Steps at once")
        )


@app.command()
def ui(port: Annotated[int, typer.Option(help="On 127.0.0.1.")] = 3000) -> None:
    """Open the Dagster UI, with its scheduler, on 127.0.0.1."""
    prepare_environment()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            refuse(
                f"port {port} on 127.0.0.1 is in use. Stop what uses it, or choose another: stella ui --port {port + 1}"
            )
    check_postgres()
    dagster = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "-m", "pipelines.definitions", "-h", "127.0.0.1", "-p", str(port)]
    os.chdir(project_root())
    os.execv(dagster, [str(dagster), *arguments])  # noqa: S606 (a fixed program of this environment)


if __name__ == "__main__":
    main()
