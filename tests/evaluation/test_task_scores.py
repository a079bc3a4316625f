"""Which score belongs to what: each model, dimension, prompt and data set has its own; samples reproduce a score."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from stella_assets.core.devices import Compute
from stella_assets.core.manifest import Manifest
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, BuildContext
from stella_assets.evaluation.encoders import EncodeRequest, PooledStates, StudentEmbedder
from stella_assets.evaluation.samples import estimate
from stella_assets.evaluation.task_scores import TaskScorer
from stella_assets.evaluation.tasks import EvaluationTask
from stella_assets.storage.workspace import Workspace
from stella_assets.students import FULL, DenseConfig
from stella_assets.students.dense.model import DenseStudent
from tests.evaluation.conftest import KINDS, own_task


@pytest.fixture
def student(dense: DenseConfig) -> DenseStudent:
    return dense.initialise(48, 0, Compute())


@pytest.fixture
def context(workspace: Workspace, log: Any, tmp_path: Path) -> BuildContext:
    return BuildContext("part", "key", tmp_path, tmp_path, {}, workspace, log, Compute(), runner=Runner(workspace, log))


class Counted:
    """Counts the texts that a student really encodes."""

    def __init__(self, student: DenseStudent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts = 0
        encode = student.encode_pooled

        def counting(texts: list[str]) -> np.ndarray:
            self.texts += len(texts)
            return encode(texts)

        monkeypatch.setattr(student, "encode_pooled", counting)


def score(
    task: EvaluationTask, student: DenseStudent, context: BuildContext, head: str | None = FULL, **prompts: str
) -> float:
    embedder = StudentEmbedder(PooledStates(student, context.workspace), head, prompts)
    return TaskScorer("tiny", task, context).score("student", embedder).row["score"]


def artefacts(context: BuildContext) -> Iterator[Artefact]:
    for path in sorted(context.workspace.artefacts.glob("task_scores/*/*/manifest.json")):
        yield Artefact(path.parent.name, path.parent, Manifest.read(path))


def test_a_damaged_model_gets_a_low_score_although_another_score_is_stored(dense, context, tmp_path):
    same = [
        ("A cat rests on the sofa.", "The feline is lying upon a couch."),
        ("He purchased an automobile.", "The man bought a car."),
        ("The physician treated the child.", "A doctor took care of the kid."),
        ("It rained heavily all night.", "Until morning there was a strong downpour."),
    ]
    other = [
        ("A cat rests on the sofa.", "The sofa rests on a wall."),
        ("He purchased an automobile.", "He walked to the mountain."),
        ("The physician treated the child.", "The child heard the music."),
        ("It rained heavily all night.", "All night he wrote the novel."),
    ]
    first, second = zip(*same, *other, strict=True)
    pairs = {"sentence1": first, "sentence2": second, "score": [5.0] * 4 + [0.0] * 4}
    pl.DataFrame(pairs).write_parquet(tmp_path / "pairs.parquet")
    task = own_task("sts", tmp_path / "pairs.parquet")
    student = dense.with_values(keep_layers=None).initialise(None, 0, Compute())
    good = score(task, student, context, None)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in student.backbone.parameters():
            shuffled = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)]
            parameter.copy_(shuffled.view_as(parameter))
    assert good > 0.7
    assert score(task, student, context, None) < good - 0.2


def test_a_model_with_another_head_or_dimension_has_a_score_of_its_own(student, context, places):
    task = own_task("sts", places["sts"])
    full, short = score(task, student, context, FULL), score(task, student, context, "32")
    with torch.no_grad():
        student.head(FULL).linear.weight.copy_(torch.randn(48, 384, generator=torch.Generator().manual_seed(1)))
    other = score(task, student, context, FULL)
    assert len({full, short, other}) == len(list(artefacts(context))) == 3


def test_a_score_is_found_again_by_a_model_of_another_name(student, context, places, dense, tmp_path, monkeypatch):
    task = own_task("sts", places["sts"])
    first = score(task, student, context)
    student.save(tmp_path / "saved", FULL, {})
    again = dense.load(tmp_path / "saved", Compute())
    counted = Counted(again, monkeypatch)
    assert score(task, again, context) == first
    assert counted.texts == 0
    assert len(list(artefacts(context))) == 1


def test_other_data_or_another_prompt_is_another_score(student, context, places):
    task = own_task("sts", places["sts"])
    score(task, student, context)
    score(task, student, context, STS="Say what is alike: ")
    pl.read_parquet(places["sts"]).head(60).write_parquet(places["sts"])
    score(task, student, context)
    assert len(list(artefacts(context))) == 3


def test_texts_are_encoded_once_for_all_heads_and_tasks(student, context, places, monkeypatch):
    counted = Counted(student, monkeypatch)
    for kind in ("sts", "pair_classification", "clustering"):
        for head in (FULL, "32"):
            score(own_task(kind, places[kind]), student, context, head)
    assert counted.texts == 60


@pytest.mark.parametrize("kind", KINDS)
def test_samples_reproduce_the_score_of_mteb(kind, student, context, places):
    expected = score(own_task(kind, places[kind]), student, context)
    (artefact,) = artefacts(context)
    statistic = json.loads((artefact.folder / "score.json").read_text())["statistic"]
    rows = pl.read_parquet(artefact.folder / "samples.parquet").to_dicts()
    assert estimate(statistic, rows) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_mteb_scores_our_encoder_as_it_scores_sentence_transformers(kind, dense, context, places, tmp_path):
    """The same model through our encoder and through mteb's own wrapper."""
    import mteb
    from sentence_transformers import SentenceTransformer

    student = dense.with_values(matryoshka_dims=()).initialise(48, 0, Compute())
    student.dtype = "float32"
    student.save(tmp_path / "model", FULL, {})
    task = own_task(kind, places[kind])
    ours = score(task, student, context)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    result = mteb.evaluate(theirs, task.load(), cache=None, co2_tracker=False, show_progress_bar=False)
    assert ours == pytest.approx(result.task_results[0].get_score(), abs=2e-3)


def question(kind: str, prompt_type: str | None, instruction: str = "") -> EncodeRequest:
    from mteb.types import PromptType

    task = own_task(kind, Path(), instruction=instruction)
    return EncodeRequest(task.task.metadata, PromptType(prompt_type) if prompt_type else None)


def test_prompts_are_for_queries_by_default():
    prompts = {"Retrieval": "find: ", "own_sts": "alike: ", "query": "ask: ", "document": "text: "}
    assert question("retrieval", "query").choose(prompts) == "find: "
    assert question("retrieval", "document").choose(prompts) == "text: "
    assert question("retrieval", "document").choose({"Retrieval": "find: "}) is None
    assert question("sts", None).choose(prompts) == "alike: "
    assert question("classification", None).choose(prompts) is None


def test_an_instruction_is_the_tasks_own_or_that_of_its_kind():
    prompts = {"Classification": "Instruct: {instruction}\nQuery: "}
    assert question("classification", None, "Name the topic.").choose(prompts) == "Instruct: Name the topic.\nQuery: "
    assert question("classification", None).choose(prompts) == "Instruct: Classify user passages.\nQuery: "
