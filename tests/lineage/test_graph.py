"""The asset graph as a whole: an unintended change of keys, inputs or groups fails here."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
from storage.workspace import Workspace

from pipelines.definitions import build_definitions, job_name, recipe_assets
from stella_assets.core.step import all_steps
from stella_assets.recipe import Recipe, parse_recipe
from stella_assets.release.publish import release_step

GRAPH = """
cleaned_texts: -
duplicates: cleaned_texts
corpus: cleaned_texts duplicates
teacher_vectors/minilm: corpus
teacher_vectors/lsa: corpus
concatenated_vectors: corpus teacher_vectors/lsa teacher_vectors/minilm
vector_stats: concatenated_vectors teacher_vectors/lsa teacher_vectors/minilm
tokenised_texts: corpus
stage_1: concatenated_vectors tokenised_texts
stage_2: concatenated_vectors stage_1 tokenised_texts
stage_3: concatenated_vectors stage_2 tokenised_texts
evaluation_tasks: corpus
mteb/teacher_minilm: evaluation_tasks teacher_vectors/minilm
mteb/teacher_lsa: evaluation_tasks teacher_vectors/lsa
mteb/concatenation: evaluation_tasks teacher_vectors/lsa teacher_vectors/minilm
mteb/base_model: evaluation_tasks
mteb/stage_1: evaluation_tasks stage_1
mteb/stage_2: evaluation_tasks stage_2
mteb/stage_3: evaluation_tasks stage_3
evaluation_report: concatenated_vectors corpus evaluation_tasks mteb/concatenation mteb/stage_1 mteb/stage_2 \
mteb/stage_3 mteb/teacher_lsa mteb/teacher_minilm mteb/base_model stage_1 stage_2 stage_3 \
teacher_vectors/lsa teacher_vectors/minilm vector_stats
study_runs: -
study: study_runs
mteb/released: evaluation_tasks
release_gate: evaluation_report mteb/concatenation mteb/released mteb/stage_1 mteb/stage_2 mteb/stage_3 \
mteb/teacher_lsa mteb/teacher_minilm mteb/base_model
release: concatenated_vectors corpus evaluation_report release_gate stage_1 stage_2 stage_3 teacher_vectors/lsa \
teacher_vectors/minilm
"""
GROUPS = {
    "tiny_1_corpus": 3,
    "tiny_2_teachers": 4,
    "tiny_3_training": 4,
    "tiny_4_evaluation": 9,
    "tiny_5_release": 3,
    "tiny_6_study": 2,
}


def test_the_graph_of_a_recipe_is_as_drawn(tiny: Recipe, workspace: Workspace):
    graph = build_definitions([tiny], workspace).resolve_asset_graph()
    drawn = dict(line.split(": ") for line in GRAPH.replace("\\\n", "").strip().splitlines())
    found = {
        "/".join(key.path[1:]): " ".join(sorted("/".join(p.path[1:]) for p in graph.get(key).parent_keys)) or "-"
        for key in graph.get_all_asset_keys()
    }
    assert found == drawn


def test_every_asset_has_its_group_description_and_checks(tiny: Recipe):
    assets = recipe_assets(tiny)
    specs = [spec for asset in assets for spec in asset.specs]
    groups = [spec.group_name for spec in specs]
    assert {group: groups.count(group) for group in groups} == GROUPS
    assert all(spec.description and spec.kinds for spec in specs)
    unchecked = {"cleaned_texts", "duplicates", "study_runs", "study"}  # what comes of them is checked
    assert {asset.key.path[-1] for asset in assets if not asset.check_specs} == unchecked & {
        a.key.path[-1] for a in assets
    }


def test_owners_of_a_recipe_own_its_assets(raw: dict[str, Any], tmp_path: Path, workspace: Workspace):
    raw |= {"owners": ["team:search", "a.person@example.org"], "redistil": True}
    recipe = parse_recipe(raw, tmp_path / "tiny.yaml")
    graph = build_definitions([recipe], workspace).resolve_asset_graph()
    assert {node.owners for node in graph.asset_nodes} == {recipe.owners}


def test_dagster_and_the_command_line_see_the_same_steps(tiny: Recipe, workspace: Workspace):
    graph = build_definitions([tiny], workspace).resolve_asset_graph()
    keys = {"/".join(key.path[1:]) for key in graph.get_all_asset_keys()}
    assert keys - {"study_runs", "study"} == {step.name for step in all_steps(release_step(tiny))}


def test_several_recipes_live_side_by_side(tiny: Recipe, workspace: Workspace):
    other = tiny.model_copy(update={"name": "other"})
    definitions = build_definitions([tiny, other], workspace)
    dg.Definitions.validate_loadable(definitions)
    assert len(list(definitions.resolve_asset_graph().get_all_asset_keys())) == 50
    assert {job_name(tiny), job_name(other)} <= {job.name for job in definitions.resolve_all_job_defs()}


def test_loading_definitions_imports_nothing_heavy():
    heavy = ["torch", "transformers", "sentence_transformers", "mteb", "sklearn", "lancedb", "duckdb", "matplotlib"]
    code = (
        "import sys; from pipelines.definitions import defs; defs();"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
