"""The published recipes: what they ask for, and a run of each to its release, on small models of the same kind."""

import json
import logging
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from sentence_transformers import SentenceTransformer

from stella_assets.core.models import code_digest
from stella_assets.core.runner import Runner
from stella_assets.core.services import Services
from stella_assets.pipelines.asset_factory import step_asset
from stella_assets.pipelines.launcher import Launcher
from stella_assets.pipelines.outcome import outcome_of
from stella_assets.recipe import Graph, Recipe, parse_recipe
from stella_assets.recipe.preflight import access_states, check_recipe
from stella_assets.storage.workspace import Workspace
from tests.conftest import TINY
from tests.evaluation.conftest import write_tasks
from tests.lineage.test_checks import RETRIEVAL
from tests.models import build
from tests.teachers.test_old_libraries import Published, published  # noqa: F401 (a fixture)

RECIPES = Path(__file__).parents[2] / "recipes"
PUBLISHED = ("jasper", "stella_en_400m", "stella_en_1_5b", "stella_en_400m_contrastive")


def plain(name: str) -> dict[str, Any]:
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))


def parsed(name: str) -> Recipe:
    return parse_recipe(plain(name), RECIPES / f"{name}.yaml")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_is_compared_with_the_benchmark_that_scores_it(name: str):
    recipe = parsed(name)
    assert recipe.evaluation.tasks == ("MTEB(eng, v1)",)
    assert recipe.corpus.decontaminate is not None
    assert recipe.corpus.decontaminate.sets[0].tasks == recipe.evaluation.tasks


@pytest.mark.parametrize("name", PUBLISHED)
def test_teachers_and_student_have_the_prompts_of_their_authors(name: str):
    recipe = parsed(name)
    assert recipe.student.query_prompts == ("s2p_query", "s2s_query")
    assert set(recipe.evaluation.prompts.values()) == {"s2p_query", "s2s_query"}
    for teacher in recipe.teachers:
        instruction = "Instruct: Given a web search query, retrieve relevant passages that answer the query"
        assert teacher.prompts["query"].startswith(instruction)
        assert "document" not in teacher.prompts
        # Documents of retrieval get no instruction, as their authors have it.
        assert "Retrieval-document" not in teacher.task_prompts()
        assert {"Retrieval-query", "Reranking-query", "STS"} <= set(teacher.task_prompts())


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_environment_of_a_published_recipe_is_pinned(name: str):
    environments = [teacher.environment for teacher in parsed(name).teachers]
    assert all(environments)
    for environment in environments:
        names = {requirement.name: requirement.version for requirement in environment.read()}
        assert (names["transformers"], names["sentence-transformers"]) == ("4.42.4", "2.7.0")


def test_stellas_heads_reach_8192_dimensions():
    for name in PUBLISHED[1:]:
        assert parsed(name).student.matryoshka_dims == (8192, 6144, 4096, 2048, 1024, 768, 256)
    assert parsed("jasper").student.matryoshka_dims == (1024, 512, 256)
    assert json.dumps(plain("jasper")["stages"]) == json.dumps(plain("stella_en_400m")["stages"])
    *distilled, finish = plain("stella_en_400m_contrastive")["stages"]
    assert distilled == plain("stella_en_400m")["stages"]
    assert finish["method"] == "contrastive"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two of mteb's tasks in the local layout."""
    places = write_tasks(tmp_path / "data")
    for kind, name in (("sts", "STSBenchmark.parquet"), ("retrieval", RETRIEVAL)):
        places[kind].rename(places[kind].with_name(name))
    return tmp_path / "data"


@pytest.fixture
def students(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Base models of the same classes, with code of the same kind: one that cannot run here, and one that can."""
    build("qwen2", tmp_path)
    for file, names in (
        ("config.json", {"AutoModel": "modeling_qwen.Qwen2Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", None]}),
    ):
        path = tmp_path / "qwen2" / file
        path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": names, "is_causal": False}))
    build("custom_code", tmp_path)
    # Room for the prompt, whose words this tokenizer cuts into many tokens.
    qwen2 = {"model": str(tmp_path / "qwen2"), "max_length": 128}
    code = tmp_path / "custom_code"
    new = {"model": str(code), "code_digest": code_digest(code), "max_length": 64}
    return {"jasper": qwen2, "stella_en_1_5b": qwen2, "stella_en_400m": new, "stella_en_400m_contrastive": new}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_runs_to_its_release(
    name: str,
    published: Published,  # noqa: F811
    students: dict[str, dict[str, Any]],
    data: Path,
    tmp_path: Path,
    workspace: Workspace,
    log: logging.Logger,
):
    raw = plain(name)
    raw["corpus"] |= {**TINY["corpus"], "dev": 0.1, "decontaminate": {"sets": [{"name": "mteb", "path": str(data)}]}}
    if "mined_negatives" in raw:
        raw["corpus"]["sources"] = [{**TINY["corpus"]["sources"][0], "pairs": "first_sentence"}]
    for teacher in raw["teachers"]:
        del teacher["revision"]
        teacher |= {"model": str(published.folder), "code_digest": code_digest(published.folder), "max_length": 32}
        teacher["environment"] = published.environment.settings()
        if "tokenizer_kwargs" in teacher:
            del teacher["tokenizer_kwargs"]["add_eos_token"]  # the small model has the tokenizer of a BERT
        if "dense_folder" in teacher:
            teacher["dense_folder"] = "2_Dense_16"
    for pin in ("revision", "code_revision"):
        raw["student"].pop(pin, None)
    raw["student"] |= students[name]
    for stage in raw["stages"]:
        stage.pop("epochs", None)
        stage |= {"steps": 4, "batch_size": 16, "checkpoint_every": 2}
    raw["evaluation"] |= {"tasks": ["STSBenchmark", RETRIEVAL], "data": str(data)}
    raw["release"]["gate"] = {"max_base_regression": None}  # a few steps on random models teach nothing
    graph = Graph(parse_recipe(raw, tmp_path / "recipe.yaml"))
    runner = Runner(workspace, log, published.compute)
    result = dg.materialize(
        [step_asset(step) for step in graph.steps],
        resources={"runner": runner, "launcher": Launcher()},
        raise_on_error=False,
    )
    assert outcome_of(result).failures == ()
    release = runner.read(graph.release)
    trust = raw["student"].get("trust_remote_code", False)
    released = SentenceTransformer(str(release), device="cpu", trust_remote_code=trust)
    assert released.encode(["one text"], prompt_name="s2p_query").shape == (1, 1024)
    folders = {int(path.name.removeprefix("2_Dense_")) for path in release.glob("2_Dense_*")}
    assert folders >= set(raw["student"]["matryoshka_dims"])


def test_the_recipe_of_three_services_is_checked_without_keys_which_are_named(workspace: Workspace):
    recipe = parsed("three_apis")
    assert check_recipe(recipe, workspace) == 3 * 1024
    assert [stage.teachers and len(stage.teachers) for stage in recipe.stages] == [1, 2, 3, None]
    missing = access_states(recipe, Services())
    for line, name in zip(missing, ("OPENAI_API_KEY", "COHERE_API_KEY", "VOYAGE_API_KEY"), strict=True):
        assert f"the environment variable {name} is not set" in line
    assert {terms.distribution for terms in recipe.stated_terms().values()} == {"internal"}
    assert access_states(recipe, Services(secret=lambda _name: "a key")) == []
