"""The demo of teachers behind APIs: its recipe fits its servers, and a run leads to a release that tells its cost."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest
import yaml

from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.services import Services
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.preflight import check_recipe
from stella_assets.recipe.presets import expand_preset
from stella_assets.storage.workspace import Workspace
from tests.api_server import StandIn
from tests.api_server.demo import KEY, servers
from tests.api_server.encoders import hash_encoder, minilm_encoder, spelling_encoder

PATH = Path(__file__).parents[2] / "recipes" / "demo_api.yaml"


def plain() -> dict[str, Any]:
    return yaml.safe_load(PATH.read_text(encoding="utf-8"))


def test_the_recipe_asks_the_servers_that_the_demo_starts(workspace: Workspace):
    recipe = parse_recipe(plain(), PATH)
    asked = [urlsplit(teacher.service.base_url) for teacher in recipe.teachers]
    started = [urlsplit(address) for address in servers()]
    assert {address.netloc for address in asked} == {address.netloc for address in started}
    assert {address.hostname for address in asked} == {"127.0.0.1"}
    assert {teacher.key for teacher in recipe.teachers} == {KEY, None}
    assert {terms.distribution for terms in recipe.stated_terms().values()} == {"allowed"}
    assert check_recipe(recipe, workspace) == 384 + 384 + 256


@pytest.mark.slow
def test_three_services_join_one_after_another_and_the_release_says_what_they_cost(
    workspace: Workspace, log: logging.Logger
):
    raw, key = plain(), "sk-marker-of-the-demo"
    raw["corpus"]["sources"][0] |= {"packages": ["networkx"], "limit": 300}
    stages = expand_preset({"preset": "joining", "texts": 1000}, [teacher["name"] for teacher in raw["teachers"]])
    raw["stages"] = [{key: value for key, value in stage.items() if key != "min_steps"} for stage in stages]
    raw["release"] |= {"onnx": False, "gate": {"max_base_regression": None}}
    encoders = {"minilm": minilm_encoder(), "e5": hash_encoder(384), "spelling": spelling_encoder()}
    with ExitStack() as stack:
        for teacher in raw["teachers"]:
            stand_in = StandIn(encoders[teacher["name"]], key=key if teacher["key"] else None)
            address = stack.enter_context(stand_in.running())
            paths = {"minilm": "/cohere", "e5": "/openai/v1", "spelling": "/voyage/v1"}
            teacher["service"]["base_url"] = address + paths[teacher["name"]]
        graph = Graph(parse_recipe(raw, PATH))
        compute = Compute(services=Services(workspace, {KEY: key}.get, "demo_api"))
        runner = Runner(workspace, log, compute)
        for step in graph.steps:
            runner.make(step)
    card = (runner.read(graph.release) / "README.md").read_text(encoding="utf-8")
    for name in encoders:
        assert f"| {name} | allowed | " in card
    assert "| together |" in card
    scores = pl.concat(runner.read(step).rows() for step in graph.scores.values())
    dims = {model: rows["dimension"].max() for (model,), rows in scores.group_by("model")}
    assert [dims[f"stage_{number}"] for number in (1, 2, 3, 4)] == [384, 768, 1024, 1024]
    assert key not in "".join(path.read_text(errors="ignore") for path in workspace.root.rglob("*") if path.is_file())
