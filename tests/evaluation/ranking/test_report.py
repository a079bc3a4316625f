"""The report of a recipe with retrievers, and of one without."""

import copy
from pathlib import Path
from typing import Any

import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.read import RecipeError
from stella_assets.storage.workspace import Workspace
from tests.evaluation.ranking.conftest import write_ranking_tasks
from tests.training.retrievers.test_run import LATE, with_retrievers


def recipe_of(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    raw = with_retrievers(raw, folder, LATE)
    tasks = [{"name": kind, "kind": kind, "path": str(place)} for kind, place in write_ranking_tasks(folder).items()]
    raw["evaluation"] = {"tasks": [], "custom_tasks": tasks}
    return raw


@pytest.mark.slow
def test_the_report_has_a_section_on_retrieval(raw: dict[str, Any], tmp_path: Path, workspace: Workspace, log: Any):
    graph = Graph(parse_recipe(recipe_of(raw, tmp_path), tmp_path / "tiny.yaml"))
    runner = Runner(workspace, log)
    for step in upstream(graph.report, order=False):  # without the rehearsal
        runner.make(step)
    report = runner.read(graph.report)
    assert report.retrieval is not None
    models = ["base_model", "stage_1", "retriever/late"]
    assert [(model.type, model.model) for model in report.retrieval.models] == [
        (kind, model) for kind in ("Retrieval", "Reranking") for model in models
    ]
    scores = report.summary.student.scores
    assert report.retrieval.models[1].ndcg == pytest.approx(scores["retrieval"], abs=1e-4)
    assert report.retrieval.models[4].average_precision == pytest.approx(scores["reranking"], abs=1e-4)
    page = (report.folder / "report.md").read_text(encoding="utf-8")
    assert "## Retrieval" in page
    assert "alone on 8 queries of Retrieval tasks: " in page
    assert (report.folder / "plots" / "retrieval.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "data:image/png" in (report.folder / "report.html").read_text(encoding="utf-8").split("<h2>Retrieval</h2>")[1]
    )
    assert graph.report.presentation is not None
    assert "retrieval" in graph.report.presentation.show(runner.make(graph.report))


def test_retrievers_add_steps_and_change_no_identity_of_the_others(raw: dict[str, Any], tmp_path: Path):
    whole = recipe_of(raw, tmp_path)
    without = copy.deepcopy(whole)
    del without["retrievers"]
    after, before = (
        {step.name: step for step in Graph(parse_recipe(each, tmp_path / "tiny.yaml")).steps}
        for each in (whole, without)
    )
    families = ("retriever", "retriever_scores", "retriever_release", "retriever_index")
    assert after.keys() - before.keys() == {"retriever_scores/dense", *(f"{family}/late" for family in families)}
    assert {name: step.settings for name, step in before.items()} == {name: after[name].settings for name in before}
    added = {step.name for step in after["evaluation_report"].dependencies} - {
        step.name for step in before["evaluation_report"].dependencies
    }
    assert added == {"retriever_scores/dense", "retriever_scores/late"}


def test_a_retriever_is_not_named_as_the_dense_students(raw: dict[str, Any], tmp_path: Path):
    with pytest.raises(RecipeError, match="a retriever cannot be named 'dense'"):
        parse_recipe(with_retrievers(raw, tmp_path, {**LATE, "name": "dense"}), tmp_path / "tiny.yaml")
