"""Scores of other seeds: a step for each seed, with scores of its own."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.evaluation.model_scores import ModelScores
from stella_assets.evaluation.scoreboard import Scoreboard
from stella_assets.evaluation.scores import stage_scores_step
from stella_assets.evaluation.seeds import summarise_seeds
from stella_assets.evaluation.settings import EvaluationSettings
from stella_assets.evaluation.task_set import TaskSet, tasks_step
from stella_assets.storage.workspace import Workspace
from stella_assets.students import FULL, DenseConfig, SavedStudent
from tests.evaluation.conftest import sentences

SEEDS = (1, 2, 3)


class FewTexts:
    """The part of a corpus that the tasks read."""

    def table(self, columns: list[str]) -> pa.Table:
        rows = [
            {"id": f"{i:032x}", "text": text, "split": "test", "role": "document"}
            for i, (_, text) in enumerate(sentences(9))
        ]
        return pa.Table.from_pylist(rows).select(columns)

    def take(self, positions: np.ndarray, columns: list[str]) -> pa.Table:
        return self.table(columns).take(positions)


@pytest.fixture
def tasks(places: dict[str, Path]) -> Step[TaskSet]:
    custom = [{"name": "Mine", "kind": "sts", "path": str(places["sts"])}]
    corpus: Step[Any] = Step(
        "tiny", "corpus", "1", {}, build=lambda _context: Result(), read=lambda _artefact, _workspace: FewTexts()
    )
    evaluation = EvaluationSettings.model_validate({"tasks": [], "custom_tasks": custom})
    return tasks_step("tiny", evaluation=evaluation, corpus=corpus)


def stage(dense: DenseConfig, seed: int, prefix: str = "") -> Step[SavedStudent]:
    """A stage that only initialises the heads by the seed."""

    def build(context: BuildContext) -> Result:
        dense.initialise(48, seed, context.compute).save(context.folder / "model", FULL, {})
        return Result()

    return Step(
        recipe="tiny",
        name=f"{prefix}stage_1",
        code_version="1",
        settings={"seed": seed},
        build=build,
        read=lambda artefact, _workspace: SavedStudent(artefact.folder / "model", dense),
        family="stage_1",
    )


def scores_of(
    runner: Runner, dense: DenseConfig, trained: Step[SavedStudent], tasks: Step[TaskSet], seed: int | None = None
) -> ModelScores:
    step = stage_scores_step("tiny", stage=trained, prompts={}, all_heads=False, tasks=tasks, seed=seed)
    assert step.name == ("scores/stage_1" if seed is None else f"scores/seed_{seed}")
    runner.make(step)
    return runner.read(step)


def make(workspace: Workspace, log: logging.Logger, *steps: Step[Any]) -> Runner:
    runner = Runner(workspace, log)
    for step in steps:
        runner.make(step)
    return runner


@pytest.mark.slow
def test_each_seed_has_the_scores_of_a_separate_run_with_it(dense, tasks, tmp_path, log):
    own = stage(dense, 0)
    seeded = {seed: stage(dense, seed, f"seed_{seed}/") for seed in SEEDS}
    runner = make(Workspace(tmp_path / "together"), log, *tasks.dependencies, tasks, own, *seeded.values())
    scores = {seed: scores_of(runner, dense, trained, tasks, seed) for seed, trained in seeded.items()}
    found = {seed: each.rows()["score"].to_list() for seed, each in scores.items()}
    assert len({tuple(each) for each in found.values()}) == len(SEEDS)
    for seed in SEEDS:
        alone = stage(dense, seed)
        apart = make(Workspace(tmp_path / f"seed_{seed}"), log, *tasks.dependencies, tasks, alone)
        assert scores_of(apart, dense, alone, tasks).rows()["score"].to_list() == found[seed]
    board = Scoreboard.of([scores_of(runner, dense, own, tasks), *scores.values()])
    (spread,) = summarise_seeds(board, "stage_1", SEEDS)
    assert spread.seeds == 1 + len(SEEDS)
    assert spread.spread is not None
    assert spread.spread > 0
    assert (spread.lowest, spread.highest) != (spread.mean, spread.mean)


def test_a_recipe_without_held_out_tasks_declares_and_makes_no_check_of_them(tasks, workspace, log):
    runner = make(workspace, log, *tasks.dependencies, tasks)
    assert tasks.presentation is not None
    assert tasks.presentation.checks == ()
    assert runner.require(tasks).manifest.checks == ()
