"""No flipped bit of a finished home is used in silence; see `tests.faults.flips` for why some change nothing."""

import copy
import logging
from pathlib import Path

import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.lineage.verify import verify_files
from stella_assets.recipe import Graph, Recipe, read_recipe
from stella_assets.storage.database import table_names
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.workspace import Workspace
from tests.conftest import TINY, write_recipe
from tests.faults.flips import flip_bits
from tests.faults.retrieval_home import make


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    raw = copy.deepcopy(TINY)
    raw["release"]["gate"] = {}
    return read_recipe(write_recipe(tmp_path_factory.mktemp("recipe"), raw))


@pytest.fixture(scope="module")
def home(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("home"))
    runner = Runner(workspace, logging.getLogger("test"))
    for step in upstream(Graph(recipe).release):
        runner.make(step)
    return workspace


@pytest.mark.slow
def test_verify_is_clean_on_a_finished_home(home: Workspace):
    assert list(verify_files(home)) == []
    names = table_names(home)
    assert any(name.startswith("pooled_states.") for name in names)
    assert [damage for name in names for damage in verify_table(home, name).damages] == []


@pytest.mark.slow
def test_sixty_flipped_bits_are_found_or_harmless(recipe: Recipe, home: Workspace):
    outcomes, silent = flip_bits(recipe, home, flips=60, seed=0)
    assert silent == []
    assert sum(outcomes.values()) == 60


@pytest.mark.slow
def test_bits_of_journals_pairs_scores_and_retrievers_are_found_or_harmless(tmp_path: Path):
    recipe, workspace = make(tmp_path)
    assert list(verify_files(workspace)) == []
    outcomes, silent = flip_bits(recipe, workspace, flips=300, seed=0)
    assert silent == []
    kinds = {kind for kind, _ in outcomes}
    assert kinds >= {
        "api/.json", "api/canaries.journal", "api/journal.journal", "api/journal.jsonl", "api/orders.json",
        "api/orders.keys", "artefacts/mined_negatives/mined_negatives.parquet",
        "artefacts/pair_scores/pair_scores.parquet", "artefacts/pairs/pairs.parquet",
        "artefacts/retriever/model.safetensors", "artefacts/retriever_index/index.idx",
        "artefacts/retriever_release/model.safetensors", "artefacts/retriever_scores/measures.parquet", "releases",
    }  # fmt: skip


@pytest.mark.bench
def test_a_thousand_flipped_bits_are_found_or_harmless(recipe: Recipe, home: Workspace):
    outcomes, silent = flip_bits(recipe, home, flips=1000, seed=1)
    assert silent == []
    print(sorted(outcomes.items()))
