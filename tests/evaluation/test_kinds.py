"""Kinds of tasks: each recognises mteb's tasks, and another kind needs no change elsewhere."""

from pathlib import Path
from typing import Literal

import mteb
import pytest
from mteb import abstasks

from stella_assets.evaluation.kinds import TASK_KINDS, TaskKind, kind_of
from stella_assets.evaluation.tasks import EvaluationTask

OFFICIAL = {
    "STSBenchmark": "sts",
    "Banking77Classification": "classification",
    "TwentyNewsgroupsClustering": "clustering",
    "SprintDuplicateQuestions": "pair_classification",
    "SciFact": "retrieval",
    "AskUbuntuDupQuestions": "reranking",
}


@pytest.mark.parametrize("kind", TASK_KINDS.names())
def test_a_custom_task_is_of_its_own_kind(kind):
    assert kind_of(TASK_KINDS[kind].new_task("Mine", "A task.")) is TASK_KINDS[kind]


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_task_is_recognised(name):
    kind = kind_of(mteb.get_task(name))
    assert kind is TASK_KINDS[OFFICIAL[name]]


def test_a_kind_of_another_package_is_one_class(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(TASK_KINDS, "_kinds", dict(TASK_KINDS._kinds))

    @TASK_KINDS.register
    class Summarization(TaskKind):
        """Summaries, ranked by their similarity to the text."""

        kind: Literal["summarization"]

        MTEB_TYPE = "Summarization"
        MAIN_SCORE = "cosine_spearman"
        COLUMNS = ("text", "human_summaries")

        @classmethod
        def mteb_class(cls) -> type:
            return abstasks.AbsTaskSummarization

    assert "summarization" in TASK_KINDS.names()
    task = EvaluationTask(mteb.get_task("SummEvalSummarization.v2"), "hub")
    assert task.kind is Summarization
    assert Summarization.files(tmp_path / "mine.parquet") == {tmp_path / "mine.parquet": ("text", "human_summaries")}
