"""A home with all that retrieval and services leave: journals, pairs, mined negatives, scores of pairs and retrievers.

python -m tests.faults.retrieval_home FOLDER

It writes the recipe `FOLDER/kills.yaml` and makes every step of it in `FOLDER/home`, in front of a stand-in.
"""

import copy
import json
import logging
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml

from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.services import Services
from stella_assets.recipe import Graph, Recipe, read_recipe
from stella_assets.release.promotion import promote_newest
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.api import delivery, ordering
from tests.api_server import StandIn
from tests.faults.home import RECIPE, WORDS
from tests.models import build

ROWS = 90
SERVER = {"model": "any", "server": "stand-in"}
PAID: dict[str, Any] = {
    "key": None,
    "price": 0.5,
    "terms": {"distribution": "allowed", "url": "https://example.com/terms", "read_on": "2026-11-27"},
}
TRAINED = {"batch_size": 8, "steps": 4, "learning_rate": 1e-4, "checkpoint_every": 2}


def settings(address: str) -> dict[str, Any]:
    """The recipe, with services at an address."""
    raw: dict[str, Any] = copy.deepcopy(RECIPE)
    source = {"name": "faq", "kind": "jsonl", "path": "faq.jsonl", "licence": "MIT"}
    raw["corpus"] |= {
        "sources": [{**source, "columns": {"query": "q", "positive": "a"}}],
        "clean": {"document": {"min_chars": 4}, "query": {"min_chars": 4}},
        "dev": 0.2,
        "test": 0.2,
    }
    asked = {**SERVER, "dialect": "openai", "base_url": f"{address}/openai/v1"}
    ordered = {**SERVER, "dialect": "voyage", "base_url": f"{address}/voyage/v1", "dimensions": 16}
    ranked = {**SERVER, "dialect": "voyage", "base_url": f"{address}/voyage/v1"}
    raw["teachers"] = [
        {"name": "far", "kind": "api", "service": asked, "dim": 32, "licence": "MIT", **PAID},
        {"name": "ordered", "kind": "api", "service": ordered, "delivery": "batch", "licence": "MIT", **PAID},
        raw["teachers"][1],
    ]
    raw["mined_negatives"] = {"teacher": "lsa", "per_query": 3}
    raw["pair_scores"] = [
        {"name": "store", "kind": "stored", "teacher": "lsa"},
        {"name": "paid", "kind": "rerank_api", "service": ranked, **PAID},
        {"name": "own", "kind": "retriever", "retriever": "ranker"},
    ]
    late = {"name": "late", "kind": "multi_vector", "token_dim": 8, "query_length": 16, "document_length": 24}
    ranker = {"name": "ranker", "kind": "reranker", "max_length": 32}
    raw["retrievers"] = [
        {**late, "scores": "own", "losses": {"kl": 1, "contrastive": 0.2}, "candidates": 3, **TRAINED},
        {**ranker, "scores": "paid", "losses": {"kl": 1}, "candidates": 3, **TRAINED},
    ]
    raw["release"]["dimension"] = 56
    return raw


def make(folder: Path) -> tuple[Recipe, Workspace]:
    """Write the recipe with its texts and its model, and make every step.

    Returns:
        The recipe, and the finished home; no server is needed any more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    build("bert", folder).rename(folder / "bert")
    draw = np.random.default_rng(0)
    rows = [[f"{' '.join(draw.choice(WORDS, 6))} number {n}" for _ in range(2)] for n in range(ROWS)]
    lines = [json.dumps({"q": f"what is {first}?", "a": f"{first}: {second}."}) for first, second in rows]
    (folder / "faq.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    workspace, stand_in = Workspace(folder / "home"), StandIn(marker="number 7")
    # As if hours and thousands of texts had passed.
    small, quick = patch.object(ordering, "SMALLEST_ORDER", 1), patch.object(delivery, "POLL_SECONDS", 0.02)
    with stand_in.running() as address, small, quick:
        path = folder / "kills.yaml"
        path.write_text(yaml.safe_dump(settings(address), sort_keys=False), encoding="utf-8")
        recipe = read_recipe(path)
        compute = Compute("cpu", threads=1, services=Services(workspace, recipe=recipe.name))
        runner = Runner(workspace, logging.getLogger("home"), compute)
        graph = Graph(recipe)
        for step in graph.steps:
            runner.make(step)
    promote_newest(runner, release=graph.release, gate=graph.gate, name="first")
    return recipe, workspace


if __name__ == "__main__":
    make(Path(sys.argv[1]))
