"""No flipped bit of a finished home is used in silence; see `tests.faults.flips` for why some change nothing."""

import copy
import logging

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


@pytest.mark.bench
def test_a_thousand_flipped_bits_are_found_or_harmless(recipe: Recipe, home: Workspace):
    outcomes, silent = flip_bits(recipe, home, flips=1000, seed=1)
    assert silent == []
    print(sorted(outcomes.items()))
