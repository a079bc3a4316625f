"""A base model that is not what its authors published, or is replaced during a run, gets no weight into a release."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.core.models import code_digest, model_digest
from stella_assets.core.runner import InputsChangedError, Runner
from stella_assets.core.step import Step, upstream
from stella_assets.recipe import Graph, parse_recipe
from stella_assets.storage.workspace import Workspace
from stella_assets.students import StudentError
from tests.lineage.test_architectures import recipe_of
from tests.models.mutations import MUTATIONS, Mutation, mutated, tensors

Published = Callable[[str], Path]
Base = tuple[Path, Graph, Workspace]
pytestmark = pytest.mark.slow

CHOSEN = {
    ("bert", "a tensor renamed"), ("bert", "a tensor missing"), ("bert", "a matrix cut"), ("bert", "NaN in a layer"),
    ("bert", "weights cut off"), ("bert", "weights half written, zeros after the beginning"),
    ("bert", "the last page of the weights not written"), ("bert", "configuration cut off"), ("bert", "no tokenizer"),
    ("bert", "a tokenizer with more tokens"), ("bert", "a bias for each text alone"), ("bert", "weights of zeros"),
    ("bert", "modules without pooling"), ("bert", "pooling of another width"), ("bert", "no pooling"),
    ("layout_1_dense", "a Dense of another width"), ("layout_1_dense", "no weights of the Dense"),
    ("qwen3", "a file of several missing"), ("qwen3", "no merges"), ("custom_code", "other code"),
    ("custom_code", "code missing"), ("custom_code", "no code is named"),
}  # fmt: skip
"""Of each kind of fault one or two."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One for all faults: corpus and teacher are made once."""
    return Workspace(tmp_path_factory.mktemp("mutated") / "workspace")


def graph_of(name: str, folder: Path, **pins: Any) -> Graph:
    raw = recipe_of(name, folder)
    raw["student"] |= pins
    # Whether a score is gained is not what this is about, and an export takes long.
    raw["release"]["onnx"] = False
    return Graph(parse_recipe(raw, folder.parent / "table.yaml"))


@pytest.fixture
def base(published: Published, tmp_path: Path) -> Base:
    """The folder of a base model that may be changed, and a recipe with it in a workspace of its own."""
    folder = tmp_path / "base"
    shutil.copytree(published("bert"), folder)
    return folder, graph_of("bert", folder), Workspace(tmp_path / "workspace")


def make(runner: Runner, steps: list[Step[Any]]) -> None:
    for step in steps:
        runner.make(step)


@pytest.mark.parametrize(
    "mutation",
    [each for each in MUTATIONS if (each.model, each.name) in CHOSEN],
    ids=lambda each: f"{each.model}: {each.name}",
)
def test_a_run_with_a_wrong_base_model_ends_before_training_begins(
    mutation: Mutation, published: Published, workspace: Workspace, tmp_path: Path, log: logging.Logger
):
    original = published(mutation.model)
    pins = {"code_digest": code_digest(original)} if mutation.model == "custom_code" else {}
    graph = graph_of(mutation.model, mutated(mutation, original, tmp_path), **pins)
    # Not `check_recipe`: runs that the UI or a schedule starts have only what their steps find out.
    with pytest.raises(UserError) as raised:
        make(Runner(workspace, log, Compute("cpu", threads=1)), upstream(graph.release))
    assert raised.value.remedy
    assert not (workspace.artefacts / "stage_1").exists()
    assert not (workspace.artefacts / "release").exists()


def test_every_chosen_fault_is_in_the_table():
    assert {(each.model, each.name) for each in MUTATIONS} >= CHOSEN


def replace_weights(folder: Path) -> None:
    """Another whole model in the same folder, in which no file tells that it is another one."""
    tensors(lambda found: [found[name].mul_(-1) for name in found if "word_embeddings" in name])(folder)


def test_a_base_model_that_is_replaced_after_the_rehearsal_is_not_trained(base: Base, log: logging.Logger):
    folder, graph, workspace = base
    runner = Runner(workspace, log, Compute("cpu", threads=1))
    make(runner, [step for step in upstream(graph.stages[0]) if step is not graph.stages[0]])
    replace_weights(folder)
    with pytest.raises(InputsChangedError, match="student changed during this run, after rehearsal was made"):
        runner.make(graph.stages[0])
    # A run that did not see the rehearsal has the tokens of the former model, of which it makes others.
    again = Runner(workspace, log, Compute("cpu", threads=1))
    assert again.find(graph.rehearsal) is None
    make(again, upstream(graph.stages[0]))
    assert again.require(graph.stages[0]).manifest.identity.inputs["source:student"] == model_digest(
        graph.recipe.student
    )


def test_a_base_model_that_is_replaced_after_the_texts_were_tokenised_is_not_trained(base: Base, log: logging.Logger):
    folder, graph, workspace = base
    runner, later = Runner(workspace, log, Compute("cpu", threads=1)), (graph.rehearsal, graph.stages[0])
    make(runner, [step for step in upstream(graph.stages[0]) if step not in later])
    replace_weights(folder)
    runner.make(graph.rehearsal)
    with pytest.raises(StudentError, match="its files changed after the texts were tokenised"):
        runner.make(graph.stages[0])


def test_a_base_model_that_is_replaced_after_training_leaves_the_weights_of_the_release_as_they_were(
    base: Base, log: logging.Logger
):
    folder, graph, workspace = base
    runner = Runner(workspace, log, Compute("cpu", threads=1))
    make(runner, upstream(graph.stages[-1]))
    trained = load_file(runner.read(graph.stages[-1]).folder / "model.safetensors")
    replace_weights(folder)
    make(runner, upstream(graph.release))
    released = load_file(runner.read(graph.release) / "model.safetensors")
    assert released.keys() == trained.keys()
    assert all((released[name] == trained[name]).all() for name in trained)
