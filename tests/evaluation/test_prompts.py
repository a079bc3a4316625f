"""A stranger who names no prompt gets the prompts that were measured."""

from collections.abc import Mapping

import mteb
import pytest
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from mteb.types import PromptType

from stella_assets.evaluation.encoders import EncodeRequest
from stella_assets.evaluation.kinds import TaskKind
from stella_assets.evaluation.prompts import published_prompts
from stella_assets.evaluation.tasks import EvaluationTask

OWN = {"s2p": "Find an answer: ", "s2s": "Find the like: "}
INSTRUCT = "Instruct: {instruction}\nQuery: "
TASKS = [
    EvaluationTask(mteb.get_task(name), "hub")
    for name in (
        "SciFact", "STSBenchmark", "AskUbuntuDupQuestions", "Banking77Classification", "TwitterSemEval2015",
        "StackExchangeClustering.v2", "SummEvalSummarization.v2", "CQADupstackRetrieval", "BornholmBitextMining",
    )
]  # fmt: skip
MEASURED = {
    "none": {},
    "queries": {"query": OWN["s2p"]},
    "documents, too": {"query": OWN["s2p"], "document": "Passage: "},
    "a type without a side": {"Retrieval": OWN["s2p"], "STS": OWN["s2s"]},
    "a task without a side": {"SciFact": OWN["s2p"], "SciFact-document": "Abstract: "},
    "as Stella": {"Retrieval-query": OWN["s2p"], "Reranking-query": OWN["s2p"], "STS": OWN["s2s"]},
    "instructions": {"query": INSTRUCT, "STS": INSTRUCT, "Summarization": OWN["s2s"]},
}  # fmt: skip


def as_mteb_resolves(prompts: Mapping[str, str], task: EvaluationTask, side: PromptType | None) -> str:
    """What mteb's wrapper of sentence-transformers puts before the texts of a model with these prompts."""
    valid, _ = AbsEncoder.validate_task_to_prompt_name(dict(prompts), raise_for_invalid_keys=False)
    name = get_prompt_name(valid, task.task.metadata, side)
    if name is not None:
        return prompts[name]
    # It calls `encode_query` and `encode_document`, which look for these, and `encode`, which takes none by default.
    return "" if side is None else prompts.get(side.value, "")


@pytest.mark.parametrize("measured", MEASURED.values(), ids=MEASURED)
@pytest.mark.parametrize("own", [OWN, {**OWN, "query": "An own meaning: "}], ids=["own names", "an own `query`"])
def test_mteb_finds_the_measured_prompt_of_every_task(measured: Mapping[str, str], own: Mapping[str, str]):
    prompts = published_prompts(own, measured, TASKS)
    for task in TASKS:
        for side in (task.kind or TaskKind).prompt_sides(task.task).values():
            wanted = EncodeRequest(task.task.metadata, side).choose(measured) or ""
            assert as_mteb_resolves(prompts, task, side) == wanted, (task.name, side)


def test_the_recipes_names_stay_and_the_general_ones_are_added():
    prompts = published_prompts(OWN, {"Retrieval-query": OWN["s2p"], "STS": OWN["s2s"]}, TASKS)
    assert {name: prompts[name] for name in OWN} == OWN
    assert (prompts["query"], prompts["document"]) == (OWN["s2p"], "")
    assert prompts["Retrieval-query"] == OWN["s2p"]
    assert published_prompts({}, {}, []) == {"query": "", "document": ""}


def test_an_instruction_is_written_out_for_every_task():
    prompts = published_prompts(OWN, {"query": "Instruct: {instruction}\nQuery: "}, TASKS)
    assert not [text for text in prompts.values() if "{" in text]
    assert prompts["SciFact-query"].startswith("Instruct: ")
    assert prompts["SciFact-query"] != prompts["AskUbuntuDupQuestions-query"]
