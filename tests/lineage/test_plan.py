"""A plan says what would be made, why, and what it would cost, without making anything."""

import logging
from types import SimpleNamespace
from typing import Any

from stella_assets.core.devices import Compute
from stella_assets.core.manifest import Manifest
from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext, Estimate, Result, Size, Step
from stella_assets.lineage.plan import Planned, plan
from stella_assets.storage.workspace import Workspace


def step(name: str, *dependencies: Step[Any], **more: Any) -> Step[Any]:
    def build(context: BuildContext) -> Result:
        (context.folder / "content").write_text(name)
        return Result({"texts_per_second": 10})

    return Step("toy", name, "1", build=build, dependencies=dependencies, **{"settings": {}, **more})


def graph_of(*steps: Step[Any]) -> Any:
    """What a plan reads of a graph. Its corpus was not made, so nothing is known of its size."""
    return SimpleNamespace(steps=list(steps), corpus=step("corpus", settings={"made": "never"}))


def planned(workspace: Workspace, log: logging.Logger, *steps: Step[Any]) -> dict[str, Planned]:
    return {each.asset: each for each in plan(graph_of(*steps), Runner(workspace, log))}


def test_existing_artefacts_are_not_made_and_the_others_say_why(workspace: Workspace, log: logging.Logger):
    corpus = step("corpus")
    runner = Runner(workspace, log)
    for each in (corpus, step("stage", corpus, settings={"rate": 1})):
        runner.make(each)
    stage = step("stage", corpus, settings={"rate": 2})
    found = planned(workspace, log, corpus, stage, step("scores", stage))
    assert found["corpus"] == Planned("corpus", "exists")
    assert found["stage"].because == ("rate 1 -> 2",)
    assert found["stage"].seconds == runner.made[1][1].manifest.run_info["seconds"]
    assert (found["scores"].because, found["scores"].seconds) == (("not made for this recipe before",), None)
    assert not (workspace.artefacts / "scores").exists()


def test_a_step_estimates_its_own_cost_from_the_last_of_its_kind(workspace: Workspace, log: logging.Logger):
    def estimate(runner: Runner, last: Manifest | None, _size: Size | None) -> Estimate:
        assert runner.workspace == workspace
        return Estimate("50 texts", 50 / last.metrics["texts_per_second"] if last else None)

    changed = step("vectors/a", settings={"model": "b"}, estimate=estimate)
    assert planned(workspace, log, changed)["vectors/a"].seconds is None
    Runner(workspace, log).make(step("vectors/a", settings={"model": "a"}))
    found = planned(workspace, log, changed)["vectors/a"]
    assert (found.because, found.work, found.seconds) == (('model "a" -> "b"',), "50 texts", 5.0)
    assert (found.source, found.memory_mib, found.money) == ("a past run", found.memory_mib, 0.0)
    assert found.memory_mib > 0


def test_the_middle_of_three_past_runs_on_this_device_tells(workspace: Workspace, log: logging.Logger):
    """A run on another device, and one that the step knows to be of another kind, tell nothing."""

    def estimate(_runner: Runner, last: Manifest | None, _size: Size | None) -> Estimate:
        return Estimate(seconds=last.identity.settings["seconds"] if last else None)

    def stage(seconds: int, **more: Any) -> Step[Any]:
        return step("stage", settings={"seconds": seconds}, estimate=estimate, **more)

    for seconds in (90, 10, 30):
        Runner(workspace, log).make(stage(seconds))
    found = planned(workspace, log, stage(0))["stage"]
    assert (found.seconds, found.source) == (30, "3 past runs")
    found = planned(workspace, log, stage(0, tells=lambda last: last.identity.settings["seconds"] < 50))["stage"]
    assert (found.seconds, found.source) == (30, "2 past runs")
    (elsewhere,) = plan(graph_of(stage(0)), Runner(workspace, log, Compute(device_name="cuda:7")))
    assert (elsewhere.seconds, elsewhere.source) == (None, "")


def test_a_step_that_counts_texts_takes_longer_for_more_of_them():
    """The first second is for what every build does, e.g. loading libraries."""

    def last(**metrics: int) -> Any:
        return SimpleNamespace(run_info={"seconds": 11.0, "peak_memory_mib": 7}, metrics=metrics)

    size, any_step = Size(8000, 6800, 400, 800), step("cleaned_texts")
    found = any_step.estimated(None, last(texts=2000, dim=8), size)
    assert (found.seconds, found.memory_mib, found.disk_mib) == (41.0, 7, 8000 * 8 * 2 / 2**20)
    assert any_step.estimated(None, last(texts=200), size).seconds == 11.0  # loading took most of it
    assert any_step.estimated(None, last(), size).seconds == 11.0
    assert any_step.estimated(None, None, size) == Estimate()
