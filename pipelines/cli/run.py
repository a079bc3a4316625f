"""`stella run`, and what people ask about a recipe: status, plan, report, validate."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from stella_assets.core.present import counted, shown_time
from stella_assets.core.runner import Runner
from stella_assets.corpus.sources import Preview
from stella_assets.evaluation.report import Report
from stella_assets.pipelines.cli.console import (
    AsJson,
    RecipeArgument,
    find_recipe,
    people_runner,
    quiet_runner,
)
from stella_assets.pipelines.cli.costs import charge_lines, cost_table, predict, say_costs, total_line
from stella_assets.pipelines.cli.printing import PeopleHandler, note, out, print_json, say, styled
from stella_assets.pipelines.environment import compute, prepare_environment
from stella_assets.pipelines.selection import Selection, prune_links, select_steps, unlinked
from stella_assets.recipe import Graph


def run(
    recipe: RecipeArgument,
    select: Annotated[
        list[str] | None, typer.Option(help="Only this asset and what it depends on; may be given several times.")
    ] = None,
    allow_environments: Annotated[
        bool, typer.Option("--allow-environments", help="Install the pinned packages that the recipe's teachers need.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make what the recipe describes. Existing artefacts are reused, and a killed run continues where it stopped."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.recipe.preflight import check_access, check_environments, check_recipe, remarks

    started = time.monotonic()
    graph, runner = Graph(wanted), people_runner(workspace, allow_environments)
    # First, as checks load models: a misspelt asset is reported at once.
    selected = graph.select(select) if select else graph.steps
    selection = select_steps(selected, runner)
    if selection.missing:  # a complete recipe was checked when it was made
        check_recipe(wanted, workspace, _say_remarks)
    for remark in remarks(wanted):
        note(f"{wanted.name}: {remark}")
    # Now and not after the corpus is made. A teacher whose vectors exist needs no environment.
    encoding = [teacher for teacher in wanted.teachers if graph.teachers[teacher.name] in selection.missing]
    check_environments(encoding, runner.compute.environments)
    reused = len(selection.steps) - len(selection.missing)
    note(f"{wanted.name}: {reused} of {len(selection.steps)} artefacts are reused.")
    if selection.missing:
        missing = {step.name for step in selection.missing}
        planned = [each for each in predict(graph, runner, probe=not select) if each.asset in missing]
        say_costs(planned, runner.compute.describe())
        # A service whose answers to all texts are kept is not asked, and needs no key.
        nothing = {each.asset for each in planned if each.texts == 0}
        scoring = [each for each in wanted.pair_scores if graph.pair_scores[each.name] in selection.missing]
        steps = [(each, graph.teachers[each.name]) for each in encoding]
        steps += [(each, graph.pair_scores[each.name]) for each in scoring]
        asked = [each for each, step in steps if step.name not in nothing]
        check_access(asked, runner.compute.services)
    # Opening Dagster takes seconds; a complete recipe needs no run.
    if selection.executed or unlinked(selection, runner):
        _execute(graph, selection, runner)
    if not select:
        # Also where no step was executed: a recipe may just have lost one.
        prune_links(graph, runner)
    seconds = time.monotonic() - started
    if as_json:
        print_json(_described(graph, selection, runner, seconds))
    elif not select:
        _print_summary(graph, runner, seconds)
    else:
        say("\n", (wanted.name, "bold"), f": the selected assets exist after {seconds:.1f} s.")


def _execute(graph: Graph, selection: Selection, runner: Runner) -> None:
    """Start a run of the steps that have to be executed, and link the others. A failure ends the command."""
    from stella_assets.pipelines.cli.failures import print_failed_checks, stop_if_failed
    from stella_assets.pipelines.launch import watched
    from stella_assets.pipelines.views import refresh_views

    with watched(graph, runner, PeopleHandler()) as launch:
        outcome = launch.materialise(selection)
    refresh_views(runner.workspace)
    print_failed_checks(outcome)
    stop_if_failed([outcome], runner.workspace)


def _described(graph: Graph, selection: Selection, runner: Runner, seconds: float) -> dict[str, Any]:
    """The artefacts of a run, and its scores if it made or reused the report."""
    made, folder = {step.name for step in selection.executed}, runner.workspace.root / graph.recipe.name
    assets = [
        {
            "asset": step.name,
            "state": "made" if step.name in made else "reused",
            "digest": artefact.digest,
            "folder": folder / step.name,
        }
        for step in selection.steps
        if (artefact := runner.find(step))
    ]
    report = runner.read(graph.report) if graph.report in selection.steps else None
    summary = report.summary.model_dump(mode="json") if report else None
    ranked = {"retrieval": report.retrieval.model_dump(mode="json")} if report and report.retrieval else {}
    return {"recipe": graph.recipe.name, "seconds": round(seconds, 1), "assets": assets, "report": summary, **ranked}


def _print_summary(graph: Graph, runner: Runner, seconds: float) -> None:
    name = graph.recipe.name
    say("\n", (name, "bold"), f" is complete after {seconds:.1f} s.")
    _print_scores(runner.read(graph.report))
    folder = runner.workspace.root / name
    # Short where it can be pasted as it is.
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    say(f"  report   {shown}/{graph.report.name}/report.html")
    say(f"  model    {shown}/{graph.release.name}")
    say("  SQL      stella sql 'SELECT * FROM scores'")
    say("  UI       stella ui")


def _print_scores(report: Report) -> None:
    for header, rows in (report.score_rows(), report.retention_rows()):
        table = Table(*header)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*row)
        out.print(table)
    low, high = report.gain.interval
    say(f"Gain over the base model: {report.gain.value:+.2f} points (95%: {low:+.2f} to {high:+.2f}).")
    for finding in report.retrieval_findings():
        say(finding)


def status(recipe: RecipeArgument, as_json: AsJson = False) -> None:
    """List the artefacts of the recipe: which exist, and which the next run would make."""
    workspace = prepare_environment()
    runner = quiet_runner(workspace)
    table = Table(Column("asset", no_wrap=True), "state", "digest", "made at", "seconds", "MiB")
    rows: list[dict[str, Any]] = []
    for step in Graph(find_recipe(recipe)).steps:
        artefact = runner.find(step)
        if artefact is None:
            inputs = [each.name for each in step.dependencies if runner.find(each) is None]
            state = f"waits for {inputs[0]}" if inputs else "would be made"
            table.add_row(step.name, styled((state, "yellow")), "", "", "", "")
            rows.append({"asset": step.name, "state": "waits" if inputs else "would be made", "waits_for": inputs})
            continue
        info = artefact.manifest.run_info
        rows.append(
            {"asset": step.name, "state": "exists", "digest": artefact.digest, "folder": artefact.folder, **info}
        )
        made = shown_time(info["made_at"])
        digest, seconds, memory = artefact.digest[:12], f"{info['seconds']:.1f}", str(info["peak_memory_mib"])
        table.add_row(step.name, styled(("exists", "green")), digest, made, seconds, memory)
    if as_json:
        print_json(rows)
    else:
        out.print(table)


def plan(
    recipe: RecipeArgument,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Measure a few texts and steps where no past run tells the time.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what the next run would make, why, and what it would cost: texts, steps, time, memory and disk."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    planned = predict(Graph(wanted), quiet_runner(workspace), probe=estimate)
    if as_json:
        print_json([asset.__dict__ for asset in planned])
        return
    if any(asset.state == "made" for asset in planned):
        out.print(cost_table(planned, f"{wanted.name}: would be made", reasons=True))
    for line in (*charge_lines(planned), total_line(planned)):
        say(line)


def report(recipe: RecipeArgument, as_json: AsJson = False) -> None:
    """Print scores and retention of the recipe's current models."""
    workspace = prepare_environment()
    graph, runner = Graph(find_recipe(recipe)), quiet_runner(workspace)
    if runner.find(graph.report) is None:
        note(f"{graph.recipe.name}: there is no report for this recipe as it is. Run `stella run {recipe}` first.")
        sys.exit(1)
    found = runner.read(graph.report)
    if as_json:
        ranked = {"retrieval": found.retrieval.model_dump(mode="json")} if found.retrieval else {}
        print_json(found.summary.model_dump(mode="json") | ranked)
    else:
        _print_scores(found)


def validate(
    recipe: RecipeArgument,
    rehearsal: Annotated[
        bool,
        typer.Option(
            help="Also save, export, load and train the untouched student and examine the teachers, in about 30 s."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check a recipe, its files, models and dimensions, and rehearse its student, without making anything."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe)
    from stella_assets.recipe.preflight import (
        access_states,
        check_recipe,
        environment_states,
        examine_teachers,
        model_states,
        rehearse_recipe,
        remarks,
    )

    previews: dict[str, Preview] = {}
    # Said at once where people read: a later check may take its time, or fail.
    dims = check_recipe(wanted, workspace, previews.__setitem__ if as_json else _say_preview)
    hub = model_states(wanted)
    examined = examine_teachers(wanted, workspace, compute()) if rehearsal else []
    rehearsed = rehearse_recipe(wanted, dims, compute()) if rehearsal else "The student was not rehearsed."
    planned = predict(Graph(wanted), quiet_runner(workspace), probe=rehearsal)
    lines = [rehearsed, *examined, *hub, *remarks(wanted), *environment_states(wanted, compute().environments)]
    lines += access_states(wanted, compute().services)
    if as_json:
        sources = {name: asdict(preview) for name, preview in previews.items()}
        steps = [asset.__dict__ for asset in planned]
        said = {"recipe": wanted.name, "digest": wanted.digest, "dimensions": dims, "sources": sources}
        print_json({**said, "plan": steps, "remarks": lines})
        return
    target = f"{dims} dimensions" if dims else "dimensions that are known after its hub models are downloaded"
    say(
        f"{wanted.name}: valid. {counted(len(wanted.corpus.sources), 'source')}, "
        f"{counted(len(wanted.teachers), 'teacher')} with {target}, "
        f"{counted(len(wanted.stages), 'stage')}. Digest {wanted.digest}."
    )
    out.print(cost_table(planned, f"{wanted.name}: a run would make"))
    for line in (*charge_lines(planned), total_line(planned)):
        say(line)
    for line in lines:
        note(line)


def _say_preview(name: str, preview: Preview) -> None:
    example = f", the first text is {preview.example!r}" if preview.example else ""
    say(f"source {name}: {preview.rows:,} rows were looked at{example}.")
    _say_remarks(name, preview)


def _say_remarks(name: str, preview: Preview) -> None:
    for remark in preview.remarks:
        note(f"source {name}: {remark}.")
