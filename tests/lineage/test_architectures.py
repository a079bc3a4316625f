"""Every architecture as a student: from its base model to a release that all libraries load, or refused before."""

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.core.models import code_digest
from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.preflight import check_recipe
from stella_assets.storage.workspace import Workspace
from tests.conftest import TINY
from tests.models import MODELS, TEXTS, TRUSTED

Published = Callable[[str], Path]
REFUSED = {
    **dict.fromkeys(("static_embedding", "model2vec", "model2vec_quantised"), "StaticEmbedding|without an encoder"),
    "clip": "CLIPModel, not with a Transformer",
    "custom_module": "custom_st.Scaled, not with a Transformer",
}
"""What cannot be a student, and a part of the reason that `validate` gives."""
POOLING = {
    "gpt2": "lasttoken",
    "qwen3": "lasttoken",
    "qwen3_right": "lasttoken",
    "electra": "cls",
    "custom_code": "cls",
}


def recipe_of(name: str, folder: Path) -> dict[str, Any]:
    """Few texts, a teacher that costs nothing, a stage in closed form and one that trains all layers."""
    raw = copy.deepcopy(TINY) | {"name": "table"}
    raw["corpus"]["sources"][0] |= {"packages": ["networkx"], "limit": 300}
    raw["teachers"] = [{"name": "lsa", "kind": "lsa", "dim": 24, "licence": "MIT"}]
    trust = {"trust_remote_code": True, "code_digest": code_digest(folder)} if name in TRUSTED else {}
    raw["student"] = {
        "model": str(folder), "max_length": 32, "matryoshka_dims": [16], "pooling": POOLING.get(name, "mean"),
        "prompts": {"s2p_query": "Query: "}, "query_prompts": ["s2p_query"], **trust,
    }  # fmt: skip
    losses = {"cosine": 10, "similarity": 200}
    descent = {"batch_size": 16, "steps": 6, "learning_rate": 0.0005, "checkpoint_every": 3, "full_head": losses}
    raw["stages"] = [{**descent, "train_layers": "all", "matryoshka_heads": {"similarity": 200}}]
    raw["evaluation"] = {"prompts": {"query": "s2p_query"}, "held_out": {"kinds": ["pair_classification"]}}
    raw["release"] |= {"dimension": 16, "onnx": True, "gate": {"max_base_regression": None}}
    return raw


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One for all models: corpus and teacher are made once."""
    return Workspace(tmp_path_factory.mktemp("table") / "workspace")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in REFUSED])
def test_a_student_of_this_architecture_gets_to_a_release_that_loads(
    name: str, published: Published, workspace: Workspace, tmp_path: Path, log: logging.Logger
):
    recipe = parse_recipe(recipe_of(name, published(name)), tmp_path / "table.yaml")
    check_recipe(recipe, workspace)
    graph = Graph(recipe)
    runner = Runner(workspace, log, Compute("cpu", threads=1))
    for step in upstream(graph.release):
        artefact = runner.make(step)
        failed = [check.description for check in artefact.manifest.checks if not check.passed]
        # Scores of random weights are chance, and whether they gained is not what this is about.
        assert not failed or step.name in ("evaluation_report", "release_gate"), f"{step.name}: {failed}"
    folder = graph.release.read(artefact, workspace)
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=name in TRUSTED)
    made = model.encode(TEXTS)
    student = recipe.student.load(folder, Compute("cpu", threads=1))
    student.dtype = "float32"
    expected = student.encode(TEXTS, "16")
    assert (made * expected).sum(axis=1).min() >= 0.9999
    assert np.isfinite(made).all()
    assert json.loads((folder / "modules.json").read_text())


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_student_is_refused_with_the_reason(name: str, published: Published, tmp_path: Path):
    recipe = parse_recipe(recipe_of(name, published(name)), tmp_path / "table.yaml")
    with pytest.raises(UserError, match=REFUSED[name]) as raised:
        check_recipe(recipe, Workspace(tmp_path / "workspace"))
    assert raised.value.remedy
