"""A release that is made again is compared artefact by artefact, along the inputs of its steps."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, BuildContext, Deviation, Result, Step, upstream
from stella_assets.core.trace import Node, Tracer
from stella_assets.lineage.check import mismatches
from stella_assets.lineage.match import match_steps
from stella_assets.lineage.reproduce import Comparison, Reproduction
from stella_assets.storage.workspace import Workspace
from stella_assets.training.stage import START
from stella_assets.training.start import StartError, read_start


@dataclass
class Toy:
    """A graph of five steps: a corpus, the stages of two seeds, scores of both, and a release."""

    content: dict[str, str] = field(default_factory=dict)
    compare: Callable[..., Deviation] | None = None
    start: str = ""
    version: str = "1"

    def __post_init__(self) -> None:
        self.recipe = SimpleNamespace(name="toy")
        corpus = self.step("corpus")
        versions = {START: self.start} if self.start else {}
        self.stages = [self.step("stage_1", corpus, external_versions=lambda _workspace: versions)]
        seeded = self.step("seed_1/stage_1", corpus, family="stage_1", settings={"seed": 1})
        scores = self.step("scores", self.stages[0], compare=self.compare)
        other = self.step("scores/seed_1", seeded, family="scores", compare=self.compare)
        self.release = self.step("release", scores, other)

    def step(self, name: str, *dependencies: Step[Any], **more: Any) -> Step[Any]:
        def build(context: BuildContext) -> Result:
            (context.folder / "content").write_text(self.content.get(name, name))
            return Result()

        rest = {"settings": {}, **more}
        return Step("toy", name, self.version, build=build, dependencies=dependencies, **rest)

    def released(self, name: str) -> Step[Any]:
        assert name == self.release.name
        return self.release

    def make(self, workspace: Workspace, log: logging.Logger) -> Node:
        runner = Runner(workspace, log)
        for step in upstream(self.release):
            runner.make(step)
        return Tracer(workspace).of_folder(runner.require(self.release).folder)


def compared(release: Node, toy: Toy, workspace: Workspace, log: logging.Logger) -> dict[str, Comparison]:
    fresh = Runner(Workspace(workspace.root / "reproduction"), log)
    return {each.asset: each for each in Reproduction(release, toy, workspace, fresh).run()}  # type: ignore[arg-type]


def test_steps_that_share_a_family_are_matched_with_their_own_artefacts(workspace: Workspace, log: logging.Logger):
    toy = Toy()
    matched = match_steps(toy.release, toy.make(workspace, log))
    seeds = {
        step.name: node.manifest.identity.settings.get("seed", 0)
        for step, node in matched.items()
        if node and node.manifest
    }
    assert seeds == {
        "corpus": 0, "stage_1": 0, "scores": 0, "seed_1/stage_1": 1, "scores/seed_1": 0, "release": 0
    }  # fmt: skip
    scored = {
        step.name: node.named_inputs["stage_1"] for step, node in matched.items() if node and "scores" in step.name
    }
    assert scored["scores"] is not scored["scores/seed_1"]
    assert match_steps(toy.step("release", toy.step("new")), Node("release", "0")).values()


def test_equal_bytes_are_identical(workspace: Workspace, log: logging.Logger):
    toy = Toy()
    found = compared(toy.make(workspace, log), toy, workspace, log)
    assert {each.verdict for each in found.values()} == {"identical"}
    assert next(iter(found)) == "corpus"
    assert len(found) == 6


def test_other_bytes_are_measured_where_a_tolerance_is_stated(workspace: Workspace, log: logging.Logger):
    def compare(before: Artefact, there: Workspace, now: Artefact, here: Workspace) -> Deviation:
        assert before.folder.is_relative_to(there.root)
        assert now.folder.is_relative_to(here.root)
        tolerated = (now.folder / "content").read_text() == "nearly"
        return Deviation(tolerated, "measured")

    release = Toy(compare=compare).make(workspace, log)
    other = Toy({"seed_1/stage_1": "x", "scores": "nearly", "scores/seed_1": "far", "release": "x"}, compare)
    found = compared(release, other, workspace, log)
    assert {name: each.verdict for name, each in found.items()} == {
        "corpus": "identical",
        "stage_1": "identical",
        "seed_1/stage_1": "differs",  # of equal inputs, and no tolerance is stated
        "scores": "within tolerance",
        "scores/seed_1": "differs",
        "release": "follows",
    }
    assert found["scores"].measured == "measured"
    assert found["release"].measured == "other bytes: content"


def test_what_changed_since_is_named_by_step(workspace: Workspace, log: logging.Logger):
    release = Toy().make(workspace, log)
    found = mismatches(release, Toy(version="2"), workspace)  # type: ignore[arg-type]
    named = [(each.kind, each.asset, each.before, each.now) for each in found if each.kind == "code"]
    assert ("code", "seed_1/stage_1", "1", "2") in named
    assert len(named) == 6
    assert mismatches(release, Toy(), workspace) == []  # type: ignore[arg-type]


def test_it_starts_from_the_weights_that_the_release_started_from(workspace: Workspace, log: logging.Logger):
    first = Toy().make(workspace, log)
    weights = first.all["stage_1"].digest
    second = Toy(start=weights)
    release = second.make(workspace, log)
    found = compared(release, second, workspace, log)
    assert found["stage_1"].verdict == "identical"
    start = read_start(Workspace(workspace.root / "reproduction"), "toy")
    assert start is not None
    assert start.digest == weights
    lost = Toy(start="0" * 32)
    with pytest.raises(StartError, match=r"with a higher `redistil\.keep` more of them stay"):
        compared(lost.make(workspace, log), lost, workspace, log)
