"""Each seed of a recipe gives scores of its own: those of a run of the recipe with that seed."""

import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.evaluation.tables import SCORES
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.storage.workspace import Workspace

SEEDS = (1, 2, 3)


def small(raw: dict[str, Any]) -> dict[str, Any]:
    raw["teachers"] = raw["teachers"][1:]  # the lexical teacher alone: nothing to embed with a model
    head = {"full_head": {"cosine": 1}, "learning_rate": 0.001}
    raw["stages"] = [raw["stages"][0] | head | {"steps": 10}, raw["stages"][2] | head | {"steps": 4}]
    raw["stages"][1]["matryoshka_heads"] = {"similarity": 1}
    raw["student"]["matryoshka_dims"] = [16]
    raw["release"]["dimension"] = 16
    raw["evaluation"] |= {"held_out": {"max_documents": 100}, "seeds": []}
    return raw


def scores(folder: Path) -> dict[tuple[int, str], float]:
    rows = pl.read_parquet(folder / SCORES.file).to_dicts()
    return {(row["dimension"], row["task"]): row["score"] for row in rows}


@pytest.mark.slow
def test_seeds_differ_and_equal_separate_runs(raw: dict[str, Any], tmp_path: Path, log: logging.Logger):
    raw = small(raw)
    seeded = Graph(parse_recipe(raw | {"evaluation": raw["evaluation"] | {"seeds": list(SEEDS)}}, tmp_path / "r.yaml"))
    runner = Runner(Workspace(tmp_path / "together"), log)
    found = {}
    for seed in SEEDS:
        for step in upstream(seeded.seeds[seed][-1]):
            artefact = runner.make(step)
        found[seed] = scores(artefact.folder)
    assert len({tuple(sorted(each.items())) for each in found.values()}) == len(SEEDS)
    for seed in SEEDS:
        graph = Graph(parse_recipe(raw | {"seed": seed}, tmp_path / "r.yaml"))
        apart = Runner(Workspace(tmp_path / f"apart_{seed}"), log)
        for step in upstream(graph.scores["stage_2"]):
            artefact = apart.make(step)
        assert scores(artefact.folder) == found[seed]
