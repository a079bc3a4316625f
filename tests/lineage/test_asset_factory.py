"""From steps to Dagster assets and runs, on toy steps: metadata, checks, failures, and which steps a run executes."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check
from stella_assets.core.present import Markdown, Picture, Rows, Schema
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.pipelines.asset_factory import step_asset
from stella_assets.pipelines.launcher import Launcher
from stella_assets.pipelines.outcome import Outcome, outcome_of
from stella_assets.pipelines.selection import select_steps, unlinked
from stella_assets.storage.errors import DamageError
from stella_assets.storage.workspace import Workspace

Build = Callable[[BuildContext], Result]


def write(context: BuildContext) -> Result:
    (context.folder / "file").write_text("content")
    return Result(metrics={"rows": 3})


def fail(error: Exception) -> Build:
    def build(_context: BuildContext) -> Result:
        raise error

    return build


def judged(*, passed: bool) -> Build:
    def build(context: BuildContext) -> Result:
        return Result(checks=(Check("open", passed, "what was found", {"share": 0.5}),))

    return build


GATE = (CheckSpec("open", "Stops what comes after.", blocking=True),)


def step(name: str, *dependencies: Step, build: Build = write, checks: tuple[CheckSpec, ...] = ()) -> Step:
    presentation = Presentation("corpus", "A toy.", frozenset({"python"}), checks)
    return Step("toy", name, "1", {}, build, presentation, dependencies=dependencies)


@pytest.fixture
def runner(workspace: Workspace, log: logging.Logger) -> Runner:
    return Runner(workspace, log)


def materialise(runner: Runner, *steps: Step) -> tuple[dg.ExecuteInProcessResult, Outcome]:
    resources = {"runner": runner, "launcher": Launcher()}
    result = dg.materialize([step_asset(each) for each in steps], resources=resources, raise_on_error=False)
    return result, outcome_of(result)


def test_what_a_step_shows_becomes_metadata(runner: Runner):
    def show(artefact: Artefact) -> dict:
        return {
            "picture": Picture(b"png", "words"),
            "listed": Rows([{"a": 1.5, "b": "x|y"}]),
            "none": Rows([]),
            "text": Markdown("*x*"),
            "dagster/column_schema": Schema([("id", "string")]),
            "file": artefact.folder / "file",
            "figure": 2.5,
        }

    shown = Step("toy", "shown", "1", {}, write, Presentation("corpus", "A toy.", frozenset({"python"}), show=show))
    result, _ = materialise(runner, shown)
    (event,) = result.asset_materializations_for_node("toy__shown")
    metadata = {name: value.value for name, value in event.metadata.items()}
    assert metadata["picture"] == "![words](data:image/png;base64,cG5n)"
    assert metadata["listed"].splitlines()[-1] == "| 1.5 | x\\|y |"
    assert metadata["none"] == "none"
    assert metadata["text"] == "*x*"
    assert metadata["dagster/column_schema"].columns[0].name == "id"
    assert metadata["file"] == str(runner.require(shown).folder / "file")
    assert (metadata["figure"], metadata["dagster/row_count"], metadata["reused"]) == (2.5, 3, False)
    assert event.tags["dagster/data_version"] == runner.require(shown).digest


def test_bugs_keep_their_traceback_and_mistakes_their_remedy(runner: Runner):
    first = step("first")
    wrong = [
        step("bug", first, build=fail(ValueError("this is a bug"))),
        step("mistake", first, build=fail(UserError("wrong.", "Do this."))),
        step("damage", first, build=fail(DamageError("x is damaged."))),
    ]
    _, outcome = materialise(runner, first, *wrong)
    failures = {failure.asset.removeprefix("toy/"): failure for failure in outcome.failures}
    assert (failures["bug"].message, failures["bug"].is_user_error) == ("ValueError: this is a bug", False)
    assert failures["bug"].trace.startswith("Traceback (most recent call last):")
    assert (failures["mistake"].message, failures["mistake"].trace) == ("wrong. Do this.", "")
    assert "`stella vectors verify`" in failures["damage"].message
    assert failures["mistake"].is_user_error
    assert failures["damage"].is_user_error
    assert not outcome.is_user_error  # one of them is a bug


def test_the_record_of_a_run_has_every_step(runner: Runner, workspace: Workspace):
    _, outcome = materialise(runner, step("first"), step("mistake", build=fail(UserError("wrong.", "Do this."))))
    rows = [json.loads(line) for line in (workspace.root / "runs" / f"{outcome.run_id}.jsonl").read_text().splitlines()]
    found = {row["asset"]: (row["succeeded"], row["error"]) for row in rows}
    assert found == {"first": (True, None), "mistake": (False, "wrong. Do this.")}


def test_a_run_executes_only_what_is_missing(runner: Runner, workspace: Workspace):
    first = step("first")
    second = step("second", first)
    third = step("third", second)
    runner.make(first, link=False)
    selection = select_steps([third], runner)
    assert selection.steps == [first, second, third]
    assert selection.missing == selection.executed == [second, third]
    assert unlinked(selection, runner) == [first]
    runner.link(first)
    assert unlinked(selection, runner) == []
    runner.make(second)
    runner.make(third)
    assert select_steps([third], Runner(workspace, runner.log)).executed == []


def test_a_closed_gate_stays_closed_although_its_artefact_exists(runner: Runner, workspace: Workspace):
    first = step("first")
    gate = step("gate", first, build=judged(passed=False), checks=GATE)
    between = step("between", gate)
    last = step("last", between)
    for each in (first, gate, between):
        runner.make(each)
    selection = select_steps([last], runner)
    assert selection.missing == [last]
    assert selection.executed == [gate, between, last]
    _, outcome = materialise(runner, *selection.executed)
    assert not outcome.succeeded
    assert not outcome.is_user_error
    assert [(f.asset, f.message) for f in outcome.failures] == [
        ("toy/gate", "its checks failed, so what comes after was not made.")
    ]
    assert [(check.asset, check.check) for check in outcome.failed_checks] == [("gate", "open")]
    assert Runner(workspace, runner.log).find(last) is None


def test_an_open_gate_is_not_executed_again(runner: Runner):
    gate = step("gate", build=judged(passed=True), checks=GATE)
    last = step("last", gate)
    runner.make(gate)
    assert select_steps([last], runner).executed == [last]


def test_steps_of_a_run_share_what_they_found(runner: Runner, tmp_path: Path):
    asked: list[str] = []

    def ask(_workspace: Workspace) -> dict[str, str]:
        asked.append("asked")
        return {"hub": "1"}

    first = Step("toy", "first", "1", {}, write, step("x").presentation, external_versions=ask)
    materialise(runner, first, *(step(f"later_{number}", first) for number in range(3)))
    assert asked == ["asked"]


def test_parts_that_a_step_makes_are_listed_under_names_of_their_own(runner: Runner):
    part = Step("toy", "task_scores/Pairs", "1", {}, write)

    def whole(context: BuildContext) -> Result:
        context.make_part(part)
        return write(context)

    result, _ = materialise(runner, step("whole", build=whole))
    keys = [event.asset_key.to_user_string() for event in result.all_events if event.is_step_materialization]
    assert sorted(keys) == ["toy/task_scores/Pairs", "toy/whole"]
