"""A plan says what would be made, why, and what it would cost, without making anything."""

import logging
from types import SimpleNamespace
from typing import Any

from stella_assets.core.manifest import Manifest
from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext, Estimate, Result, Step
from stella_assets.lineage.plan import Planned, plan
from stella_assets.storage.workspace import Workspace


def step(name: str, *dependencies: Step[Any], **more: Any) -> Step[Any]:
    def build(context: BuildContext) -> Result:
        (context.folder / "content").write_text(name)
        return Result({"texts_per_second": 10})

    return Step("toy", name, "1", build=build, dependencies=dependencies, **{"settings": {}, **more})


def planned(workspace: Workspace, log: logging.Logger, *steps: Step[Any]) -> dict[str, Planned]:
    graph: Any = SimpleNamespace(steps=list(steps))
    return {each.asset: each for each in plan(graph, Runner(workspace, log))}


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
    def estimate(runner: Runner, last: Manifest | None) -> Estimate:
        assert runner.workspace == workspace
        return Estimate("50 texts", 50 / last.metrics["texts_per_second"] if last else None)

    changed = step("vectors/a", settings={"model": "b"}, estimate=estimate)
    assert planned(workspace, log, changed)["vectors/a"].seconds is None
    Runner(workspace, log).make(step("vectors/a", settings={"model": "a"}))
    assert planned(workspace, log, changed)["vectors/a"] == Planned(
        "vectors/a", "made", ('model "a" -> "b"',), "50 texts", 5.0
    )
