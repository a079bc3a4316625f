"""The asset graph as a whole: an unintended change of keys, inputs or groups fails here."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stella_assets.core.step import Step
from stella_assets.pipelines.definitions import build_definitions, job_name, recipe_assets
from stella_assets.pipelines.pools import POOLS
from stella_assets.pipelines.project import project_root
from stella_assets.recipe import Graph, Recipe, parse_recipe, read_recipe
from stella_assets.storage.workspace import Workspace

GRAPH = """
cleaned_texts: -
duplicates: cleaned_texts
corpus: cleaned_texts duplicates
teacher_vectors/minilm: corpus
teacher_vectors/lsa: corpus
concatenated_vectors: corpus teacher_vectors/lsa teacher_vectors/minilm
vector_stats: concatenated_vectors teacher_vectors/lsa teacher_vectors/minilm
tokenised_texts: corpus
rehearsal: -
stage_1: concatenated_vectors rehearsal tokenised_texts
stage_2: concatenated_vectors stage_1 tokenised_texts
stage_3: concatenated_vectors stage_2 tokenised_texts
evaluation_tasks: corpus
scores/teacher_minilm: evaluation_tasks teacher_vectors/minilm
scores/teacher_lsa: evaluation_tasks teacher_vectors/lsa
scores/concatenation: concatenated_vectors evaluation_tasks teacher_vectors/lsa teacher_vectors/minilm
scores/base_model: evaluation_tasks
scores/stage_1: evaluation_tasks stage_1
scores/stage_2: evaluation_tasks stage_2
scores/stage_3: evaluation_tasks stage_3
evaluation_report: concatenated_vectors corpus evaluation_tasks scores/base_model scores/concatenation \
scores/stage_1 scores/stage_2 scores/stage_3 scores/teacher_lsa scores/teacher_minilm stage_1 stage_2 stage_3 \
teacher_vectors/lsa teacher_vectors/minilm vector_stats
study_runs: -
study: study_runs
scores/active_release: evaluation_tasks
release_gate: evaluation_report scores/active_release scores/base_model scores/concatenation scores/stage_1 \
scores/stage_2 scores/stage_3 scores/teacher_lsa scores/teacher_minilm
release: concatenated_vectors corpus evaluation_report evaluation_tasks release_gate stage_1 stage_2 stage_3 \
teacher_vectors/lsa teacher_vectors/minilm
"""
GROUPS = {
    "tiny_1_corpus": 3,
    "tiny_2_teachers": 4,
    "tiny_3_training": 5,
    "tiny_4_evaluation": 9,
    "tiny_5_release": 3,
    "tiny_6_study": 2,
}


def test_the_graph_of_a_recipe_is_as_drawn(tiny: Recipe, workspace: Workspace):
    graph = build_definitions([Graph(tiny)], workspace).resolve_asset_graph()
    drawn = dict(line.split(": ") for line in GRAPH.replace("\\\n", "").strip().splitlines())
    found = {
        "/".join(key.path[1:]): " ".join(sorted("/".join(p.path[1:]) for p in graph.get(key).parent_keys)) or "-"
        for key in graph.get_all_asset_keys()
    }
    assert found == drawn


def test_every_asset_has_its_group_description_and_checks(tiny: Recipe):
    assets = recipe_assets(Graph(tiny))
    specs = [spec for asset in assets for spec in asset.specs]
    groups = [spec.group_name for spec in specs]
    assert {group: groups.count(group) for group in groups} == GROUPS
    assert all(spec.description and spec.kinds for spec in specs)
    unchecked = {"cleaned_texts", "duplicates", "study_runs", "study"}  # later steps check their results
    assert {asset.key.path[-1] for asset in assets if not asset.check_specs} == unchecked & {
        a.key.path[-1] for a in assets
    }


def test_owners_of_a_recipe_own_its_assets(raw: dict[str, Any], tmp_path: Path, workspace: Workspace):
    raw |= {"owners": ["team:search", "a.person@example.org"], "redistil": True}
    recipe = parse_recipe(raw, tmp_path / "tiny.yaml")
    graph = build_definitions([Graph(recipe)], workspace).resolve_asset_graph()
    assert {node.owners for node in graph.asset_nodes} == {recipe.owners}


def test_dagster_and_the_command_line_see_the_same_steps(tiny: Recipe, workspace: Workspace):
    graph = build_definitions([Graph(tiny)], workspace).resolve_asset_graph()
    keys = {"/".join(key.path[1:]) for key in graph.get_all_asset_keys()}
    assert keys - {"study_runs", "study"} == {step.name for step in Graph(tiny).steps}


def test_a_graph_builds_each_step_once(monkeypatch: pytest.MonkeyPatch):
    built: list[str] = []
    check = Step.__init__

    def count(self: Step, *arguments: Any, **values: Any) -> None:
        check(self, *arguments, **values)
        built.append(self.name)

    monkeypatch.setattr(Step, "__init__", count)
    graph = Graph(read_recipe(project_root() / "recipes" / "demo.yaml"))
    assert len(built) == len(graph.steps) == len(set(built)) == 25


def test_every_seed_is_trained_and_scored_by_assets_of_its_own(
    raw: dict[str, Any], tmp_path: Path, workspace: Workspace
):
    raw["evaluation"]["seeds"] = [1, 2]
    graph = Graph(parse_recipe(raw, tmp_path / "tiny.yaml"))
    keys = build_definitions([graph], workspace).resolve_asset_graph().get_all_asset_keys()
    names = {"/".join(key.path[1:]) for key in keys}
    for seed in (1, 2):
        assert {f"seed_{seed}/stage_{number}" for number in (1, 2, 3)} | {f"scores/seed_{seed}"} <= names


def test_pools_cover_what_takes_all_of_a_machine(tiny: Recipe):
    pools = {step.name: step.pool for step in Graph(tiny).steps if step.pool}
    assert set(pools.values()) == set(POOLS)
    assert {name for name, pool in pools.items() if pool == "training"} == {"stage_1", "stage_2", "stage_3"}
    assert {name for name, pool in pools.items() if pool == "encoding"} >= {
        "teacher_vectors/minilm",
        "teacher_vectors/lsa",
    }


def test_several_recipes_are_in_one_set_of_definitions(tiny: Recipe, workspace: Workspace):
    other = tiny.model_copy(update={"name": "other"})
    definitions = build_definitions([Graph(tiny), Graph(other)], workspace)
    dg.Definitions.validate_loadable(definitions)
    assert len(list(definitions.resolve_asset_graph().get_all_asset_keys())) == 52
    assert {job_name(tiny), job_name(other)} <= {job.name for job in definitions.resolve_all_job_defs()}


HEAVY = ["torch", "transformers", "sentence_transformers", "mteb", "sklearn", "lancedb", "matplotlib"]
COMMAND = "sys.argv[1:] = [{0!r}, 'demo']; from stella_assets.pipelines.cli import main; main()"
QUICK = {
    "definitions": ("from stella_assets.pipelines.definitions import defs; defs()", [*HEAVY, "duckdb"]),
    **{name: (COMMAND.format(name), [*HEAVY, "dagster", "pandas", "polars"]) for name in ("status", "plan", "report")},
}


@pytest.mark.parametrize("what", QUICK)
def test_definitions_and_quick_commands_import_nothing_heavy(what: str, tmp_path: Path):
    work, heavy = QUICK[what]
    code = (
        f"import atexit, sys\natexit.register(lambda: print([name for name in {heavy} if name in sys.modules]))\n{work}"
    )
    environment = {**os.environ, "STELLA_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
