"""The release of a retriever is verified, checked and made again like that of the student."""

import copy
import json
import logging
from pathlib import Path

import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import upstream
from stella_assets.lineage.check import damages, mismatches
from stella_assets.lineage.find import find_artefact
from stella_assets.lineage.reproduce import Reproduction
from stella_assets.lineage.verify import verify_files
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.recipe.graph import UnknownStepError
from stella_assets.storage.workspace import Workspace
from tests.conftest import TINY
from tests.evaluation.ranking.conftest import write_ranking_tasks
from tests.training.retrievers.test_run import LATE, with_retrievers

RELEASE, INDEX = "retriever_release/late", "retriever_index/late"
LOG = logging.getLogger("test")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    folder = tmp_path_factory.mktemp("recipe")
    raw = with_retrievers(copy.deepcopy(TINY), folder, LATE)
    tasks = [{"name": kind, "kind": kind, "path": str(place)} for kind, place in write_ranking_tasks(folder).items()]
    raw["evaluation"] = {"tasks": [], "custom_tasks": tasks}
    raw["corpus"]["test"] = 0.3
    return Graph(parse_recipe(raw, folder / "tiny.yaml"))


@pytest.fixture(scope="module")
def workspace(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """With the release and the index of a retriever."""
    made = Workspace(tmp_path_factory.mktemp("run") / "var")
    runner = Runner(made, LOG)
    for step in upstream(graph.retriever_releases["late"], graph.retriever_indexes["late"], order=False):
        runner.make(step)
    return made


@pytest.mark.slow
def test_the_release_of_a_retriever_is_made_again_with_equal_bytes(graph: Graph, workspace: Workspace, tmp_path: Path):
    node = find_artefact(workspace, f"tiny/{RELEASE}")
    assert mismatches(node, graph, workspace) == []
    assert list(damages(node, workspace)) == []
    again = Runner(Workspace(tmp_path / "again"), LOG)
    compared = list(Reproduction(node, graph, workspace, again).run())
    assert {each.asset: each.verdict for each in compared} == dict.fromkeys(node.all, "identical")
    lineage = json.loads((workspace.root / "tiny" / RELEASE / "lineage.json").read_text(encoding="utf-8"))
    assert {"corpus", "pairs", "pair_scores/store", "stage_1", "retriever/late"} <= {
        each["asset"] for each in lineage.values()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("asset", "pattern"), [(RELEASE, "model.safetensors"), (INDEX, "token_vectors/**/*.lance")])
def test_a_flipped_bit_of_a_retriever_is_named(asset: str, pattern: str, workspace: Workspace):
    assert list(verify_files(workspace)) == []
    file = max((workspace.root / "tiny" / asset).resolve().glob(pattern), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    try:
        [damaged] = verify_files(workspace)
        assert asset in damaged.place
        if asset == RELEASE:
            found = list(damages(find_artefact(workspace, f"tiny/{RELEASE}"), workspace))
            assert [(each.kind, each.asset) for each in found] == [("content", RELEASE)]
    finally:
        file.write_bytes(whole)


def test_only_a_release_is_made_again(graph: Graph):
    assert graph.released(RELEASE) is graph.retriever_releases["late"]
    assert graph.released("release") is graph.release
    with pytest.raises(UnknownStepError, match="retriever/late: is not a release of recipe 'tiny'"):
        graph.released("retriever/late")
