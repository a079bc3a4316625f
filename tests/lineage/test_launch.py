"""Runs that are started in this process, on toy steps: what they execute, what they raise, and what the UI sees."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check
from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.pipelines.launch import HOST_TAG, PARENT_TAG, PROCESS_TAG, FailedCheckError, Launch, close_dead_runs
from stella_assets.pipelines.selection import select_steps
from stella_assets.recipe import Graph, Recipe
from stella_assets.storage.workspace import Workspace

GATE = (CheckSpec("open", "Stops what comes after.", blocking=True),)


def step(name: str, *dependencies: Step, build: Callable[[BuildContext], Result] | None = None, **more: Any) -> Step:
    presentation = Presentation("corpus", "A toy.", frozenset({"python"}), more.pop("checks", ()))
    build = build or (lambda _context: Result())
    return Step("tiny", name, "1", {}, build, presentation, dependencies=dependencies, **more)


def closed(_context: BuildContext) -> Result:
    return Result(checks=(Check("open", False, "too low"),))


class Toys:
    """A launch of toy steps, with a Dagster instance of its own."""

    def __init__(self, recipe: Recipe, workspace: Workspace, *steps: Step) -> None:
        graph = cast("Graph", SimpleNamespace(recipe=recipe, steps=list(steps), release=steps[-1], gate=steps[-1]))
        self.instance = dg.DagsterInstance.ephemeral()
        self.runner = Runner(workspace, logging.getLogger("toys"))
        self.launch = Launch(graph, self.runner, self.instance, parent="the-parent")

    def runs(self) -> list[tuple[str, set[str]]]:
        """Status of each run, the newest first, and the assets that it materialised."""
        found = []
        for run in self.instance.get_runs():
            events = [entry.dagster_event for entry in self.instance.all_logs(run.run_id)]
            made = {"/".join(e.asset_key.path[1:]) for e in events if e and e.is_step_materialization and e.asset_key}
            found.append((run.status.value, made))
        return found


def test_steps_are_made_in_a_run_that_the_ui_sees(tiny: Recipe, workspace: Workspace):
    first = step("first")
    second = step("second", first)
    toys = Toys(tiny, workspace, first, second)
    toys.launch.make_all(second)
    assert toys.runs() == [("SUCCESS", {"first", "second"})]
    (run,) = toys.instance.get_runs()
    assert run.tags[PARENT_TAG] == "the-parent"
    assert [made.name for made, _ in toys.runner.made] == ["first", "second"]


def test_no_run_is_started_where_nothing_is_missing(tiny: Recipe, workspace: Workspace):
    first = step("first")
    toys = Toys(tiny, workspace, first)
    toys.runner.make(first, link=False)
    toys.launch.make_all(first)
    assert toys.runs() == []
    assert workspace.current("tiny", "first").resolve() == toys.runner.require(first).folder
    shown = toys.instance.get_latest_materialization_event(dg.AssetKey(["tiny", "first"]))
    assert shown is not None
    assert shown.asset_materialization is not None
    assert shown.asset_materialization.tags["dagster/data_version"] == toys.runner.require(first).digest


@pytest.mark.parametrize("error", [UserError("wrong.", "Do this."), OSError("the disk is gone"), ValueError("a bug")])
def test_what_a_step_raises_reaches_the_caller(error: Exception, tiny: Recipe, workspace: Workspace):
    def fail(_context: BuildContext) -> Result:
        raise error

    toys = Toys(tiny, workspace, broken := step("broken", build=fail))
    with pytest.raises(type(error)) as raised:
        toys.launch.make_all(broken)
    assert raised.value is error
    assert toys.runs() == [("FAILURE", set())]


def test_a_closed_gate_is_made_and_stops_what_comes_after(tiny: Recipe, workspace: Workspace):
    gate = step("gate", build=closed, checks=GATE)
    last = step("last", gate)
    toys = Toys(tiny, workspace, gate, last)
    toys.launch.make_all(gate)
    assert toys.runner.find(gate) is not None
    with pytest.raises(FailedCheckError, match="last was not made, because a blocking check failed"):
        toys.launch.make_all(last)
    assert toys.runner.find(last) is None


def test_an_outcome_names_the_failed_check(tiny: Recipe, workspace: Workspace):
    gate = step("gate", build=closed, checks=GATE)
    last = step("last", gate)
    toys = Toys(tiny, workspace, gate, last)
    outcome = toys.launch.materialise(select_steps([last], toys.runner))
    assert not outcome.succeeded
    assert [(check.asset, check.found) for check in outcome.failed_checks] == [("gate", "too low")]


def test_runs_of_dead_processes_are_closed_and_those_of_live_ones_stay():
    import socket

    from stella_assets.core.processes import note_process

    @dg.op
    def nothing() -> None:
        pass

    @dg.job
    def job() -> None:
        nothing()

    instance, host = dg.DagsterInstance.ephemeral(), socket.gethostname()
    for noted in ("999999999@1.0", note_process()):
        run = instance.create_run_for_job(job, tags={PROCESS_TAG: noted, HOST_TAG: host})
        instance.report_engine_event("started", run)
        instance.handle_run_event(run.run_id, _started(run.job_name))
    dead = close_dead_runs(instance)
    statuses = {run.tags[PROCESS_TAG]: run.status for run in instance.get_runs()}
    assert len(dead) == 1
    assert statuses == {"999999999@1.0": dg.DagsterRunStatus.FAILURE, note_process(): dg.DagsterRunStatus.STARTED}


def _started(job: str) -> dg.DagsterEvent:
    return dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name=job)
