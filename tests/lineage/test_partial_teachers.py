"""A student of some of the teachers, from the recipe to the release: scored, saved and released with their part."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sentence_transformers import SentenceTransformer

from stella_assets.core.runner import Runner
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.preflight import check_recipe
from stella_assets.recipe.read import RecipeError
from stella_assets.storage.workspace import Workspace
from stella_assets.students import StudentError
from tests.evaluation.conftest import write_tasks

CLOSED_FORM = {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}}


@pytest.fixture
def partial(raw: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """`second` teaches first, `first` joins it, `unused` teaches nobody; one head is above their concatenation."""
    places = write_tasks(tmp_path / "data")
    raw["corpus"]["sources"][0]["limit"] = 300
    dims = {"first": 32, "second": 16, "unused": 8}
    raw["teachers"] = [{"name": name, "kind": "lsa", "dim": dim, "licence": "MIT"} for name, dim in dims.items()]
    raw["student"] |= {"keep_layers": [0], "matryoshka_dims": [96, 16]}
    raw["stages"] = [
        CLOSED_FORM | {"teachers": ["second"]},
        {"train_layers": 0, "teachers": ["first", "second"], "full_head": {"cosine": 1}}
        | {"matryoshka_heads": {"similarity": 1}, "batch_size": 16, "steps": 4}
        | {"learning_rate": 0.001, "checkpoint_every": 2},
    ]
    mine = {"name": "Mine", "kind": "pair_classification", "path": str(places["pair_classification"])}
    raw["evaluation"] = {"tasks": [], "custom_tasks": [mine]}
    raw["release"]["dimension"] = 96
    return raw


@pytest.mark.slow
def test_every_model_is_scored_with_the_part_that_was_taught_and_the_release_has_it(
    partial: dict[str, Any], tmp_path: Path, workspace: Workspace, log: logging.Logger
):
    recipe = parse_recipe(partial, tmp_path / "tiny.yaml")
    assert check_recipe(recipe, workspace) == 48
    graph, runner = Graph(recipe), Runner(workspace, log)
    for step in graph.steps:
        runner.make(step)
    scores = pl.concat(runner.read(step).rows() for step in graph.scores.values())
    found = {name: dims["dimension"].to_list() for (name,), dims in scores.group_by("model", maintain_order=True)}
    assert found == {
        "teacher/first": [32],
        "teacher/second": [16],
        "teacher/unused": [8],
        "concatenation": [48],
        "base_model": [384],
        "stage_1": [16],
        "stage_2": [96, 48, 16],
    }
    release = runner.read(graph.release)
    assert json.loads((release / "heads.json").read_text()) == {"full": 48, "taught": None}
    student = runner.read(graph.stages[-1]).load(runner.compute)
    student.dtype = "float32"
    loaded = SentenceTransformer(str(release), device="cpu").encode(["sort numbers"])
    np.testing.assert_allclose(loaded, student.encode(["sort numbers"], "96"), atol=1e-5)
    card = (release / "README.md").read_text()
    for name, dim, listed in (("first", 32, True), ("second", 16, True), ("unused", 8, False)):
        assert (f"| {name} | lsa | {dim} |" in card) == listed


def test_the_part_of_a_recipe_in_which_all_teach_is_the_whole(partial: dict[str, Any], tmp_path: Path):
    assert parse_recipe(partial, tmp_path / "tiny.yaml").taught_by(1) == ("second",)
    assert parse_recipe(partial, tmp_path / "tiny.yaml").taught_by() == ("first", "second")
    stages = {}
    for said in (["unused", "second", "first"], None):
        partial["stages"][1]["teachers"] = said
        graph = Graph(parse_recipe(partial, tmp_path / "tiny.yaml"))
        assert "teachers" not in graph.stages[0].settings
        stages[str(said)] = len(graph.scores["concatenation"].dependencies)
    assert set(stages.values()) == {5}


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda r: r["student"].update(matryoshka_heads="prefix"), StudentError, "the first stage teaches the first 0"),
        (lambda r: r["stages"][1].update(matryoshka_heads={16: {"similarity": 1}}), RecipeError, "no stage trains it"),
        (lambda r: r["release"].update(dimension=56), RecipeError, r"not one of the student's heads \(96, 48, 16\)"),
    ],
)
def test_dimensions_that_cannot_be_are_refused_with_the_reason(
    partial: dict[str, Any], tmp_path: Path, workspace: Workspace, change: Any, error: type[Exception], said: str
):
    change(partial)
    with pytest.raises(error, match=said):
        check_recipe(parse_recipe(partial, tmp_path / "tiny.yaml"), workspace)
