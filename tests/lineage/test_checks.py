"""Every step makes the checks that it declares, whatever a recipe leaves out, and each recipe reaches its release."""

import logging
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from stella_assets.core.manifest import Check
from stella_assets.core.runner import Runner
from stella_assets.core.step import CheckSpec, Presentation, Result, Step
from stella_assets.pipelines.asset_factory import step_asset
from stella_assets.pipelines.launcher import Launcher
from stella_assets.pipelines.outcome import Outcome, outcome_of
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.storage.workspace import Workspace
from tests.evaluation.conftest import write_tasks

RETRIEVAL = "NFCorpus"
RELEASED_ANYWAY = {"max_base_regression": None}


@pytest.fixture
def small(raw: dict[str, Any]) -> dict[str, Any]:
    """One teacher, one stage, no Matryoshka heads, no ONNX."""
    raw["corpus"]["sources"][0]["limit"] = 300
    raw["teachers"] = [{"name": "lsa", "kind": "lsa", "dim": 32, "licence": "MIT"}]
    raw["student"] |= {"keep_layers": [0], "matryoshka_dims": []}
    raw["stages"] = [{"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 1}}]
    raw["release"]["dimension"] = 32
    return raw


@pytest.fixture(scope="module")
def one_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One workspace for all recipes, so that what they share is made once."""
    return Workspace(tmp_path_factory.mktemp("shared") / "workspace")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Tasks of one's own, and two of mteb's in the local layout."""
    places = write_tasks(tmp_path / "data")
    places["sts"].rename(places["sts"].with_name("STSBenchmark.parquet"))
    places["retrieval"].rename(places["retrieval"].with_name(RETRIEVAL))
    return tmp_path / "data"


def run(raw: dict[str, Any], folder: Path, workspace: Workspace, log: logging.Logger) -> tuple[Graph, Runner, Outcome]:
    """All steps of a recipe as Dagster assets, in this process."""
    graph, runner = Graph(parse_recipe(raw, folder / "tiny.yaml")), Runner(workspace, log)
    result = dg.materialize(
        [step_asset(step) for step in graph.steps],
        resources={"runner": runner, "launcher": Launcher()},
        raise_on_error=False,
    )
    return graph, runner, outcome_of(result)


def scored(graph: Graph, runner: Runner) -> dict[str, str]:
    """Task and type of the scores of the last stage."""
    rows = runner.read(graph.scores[graph.stages[-1].stored_as]).rows()
    return dict(pl.DataFrame(rows).select("task", "type").iter_rows())


@pytest.mark.slow
def test_custom_tasks_alone_lead_to_a_release(
    small: dict[str, Any], data: Path, tmp_path: Path, one_workspace: Workspace, log: logging.Logger
):
    mine = {"name": "Mine", "kind": "pair_classification", "path": str(data / "pair_classification.parquet")}
    small["evaluation"] = {"tasks": [], "custom_tasks": [mine]}
    graph, runner, outcome = run(small, tmp_path, one_workspace, log)
    assert outcome.failures == ()
    assert scored(graph, runner) == {"Mine": "PairClassification"}
    assert (runner.read(graph.release) / "modules.json").is_file()


@pytest.mark.slow
def test_official_tasks_alone_lead_to_a_release(
    small: dict[str, Any], data: Path, tmp_path: Path, one_workspace: Workspace, log: logging.Logger
):
    small["evaluation"] = {"tasks": ["STSBenchmark", RETRIEVAL], "data": str(data)}
    graph, runner, outcome = run(small, tmp_path, one_workspace, log)
    assert outcome.failures == ()
    assert scored(graph, runner) == {"STSBenchmark": "STS", RETRIEVAL: "Retrieval"}
    assert (runner.read(graph.release) / "modules.json").is_file()


@pytest.mark.slow
def test_everything_that_a_recipe_can_ask_for_leads_to_a_release_if_it_may_be_below_the_base_model(
    small: dict[str, Any], data: Path, tmp_path: Path, one_workspace: Workspace, log: logging.Logger
):
    small["corpus"] |= {
        "decontaminate": {"sets": [{"name": "own", "path": str(data)}]},
        "semantic": {"teacher": "lsa", "duplicates": 0.98, "suspects": 0.95},
    }
    small["student"]["matryoshka_dims"] = [16]
    small["stages"].append(
        {"train_layers": 0, "full_head": {"cosine": 1}, "matryoshka_heads": {"similarity": 1}, "batch_size": 16}
        | {"steps": 4, "learning_rate": 0.001, "checkpoint_every": 2}
    )
    small["evaluation"] = {
        "prompts": {"query": "s2p_query"},
        "quantizations": ["int8", "binary"],
        "paraphrases": True,
        "seeds": [1],
    }
    small["release"] = {"dimension": 32, "licence": "MIT"}
    _, _, outcome = run(small, tmp_path, one_workspace, log)
    closed = next(check for check in outcome.failed_checks if check.check == "max_base_regression")
    assert closed.asset == "release_gate"
    assert "Retrieval by " in closed.found
    assert "Most likely causes: (1) " in closed.found
    small["release"] |= {"gate": {"contamination": 1000, "dimensions": {16: 0.01}} | RELEASED_ANYWAY}
    _, _, outcome = run(small, tmp_path, one_workspace, log)
    assert outcome.failures == ()


@pytest.mark.parametrize(("declared", "made"), [(("a",), ()), ((), ("a",)), (("a",), ("b",)), (("a", "b"), ("a",))])
def test_a_step_that_makes_other_checks_than_it_declares_is_a_bug_that_names_it(
    declared: tuple[str, ...], made: tuple[str, ...], workspace: Workspace, log: logging.Logger
):
    specs = tuple(CheckSpec(name, "A check.") for name in declared)
    result = Result(checks=tuple(Check(name, True, "fine") for name in made))
    step = Step("toy", "first", "1", {}, lambda _context: result, Presentation("corpus", "A toy.", checks=specs))
    with pytest.raises(RuntimeError, match="first declares the checks"):
        Runner(workspace, log).make(step)
    assert Runner(workspace, log).find(step) is None
