"""The evaluation data as mteb tasks."""

from __future__ import annotations

from typing import Any, cast

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskPairClassification, AbsTaskRetrieval
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.task_metadata import TaskMetadata

from stella_assets.evaluation.tasks import read_task
from stella_assets.recipe import TaskKind
from stella_assets.step import Artefact


def task_metadata(name: str, kind: str, main_score: str, description: str) -> TaskMetadata:
    """What mteb wants to know of an English task whose data we bring."""
    return TaskMetadata(
        name=name,
        description=description,
        type=cast("Any", kind),
        category="t2t" if kind != "Classification" else "t2c",
        modalities=["text"],
        dataset={"path": "stella/held-out", "revision": "local"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        license="not specified",
        annotations_creators="derived",
        sample_creation="found",
    )


class HeldOutRetrieval(AbsTaskRetrieval):
    """First sentence of a held-out document as query, the rest as the document to find."""

    metadata = task_metadata("HeldOutRetrieval", "Retrieval", "ndcg_at_10", "Find a text by its first sentence.")


class HeldOutClassification(AbsTaskClassification):
    """Which section of the corpus a held-out document is from."""

    metadata = task_metadata("HeldOutClassification", "Classification", "accuracy", "Say which section a text is from.")


class HeldOutPairClassification(AbsTaskPairClassification):
    """Whether a first sentence and a rest are of one held-out document."""

    metadata = task_metadata(
        "HeldOutPairClassification", "PairClassification", "max_ap", "Do two parts belong together?"
    )


def load_tasks(artefact: Artefact) -> list[AbsTask]:
    """The tasks with their data; the revision that mteb records is the digest of the data."""
    makers: dict[TaskKind, Any] = {
        "retrieval": _retrieval,
        "classification": _classification,
        "pair_classification": _pair_classification,
    }
    tasks = [makers[kind](artefact) for kind in artefact.manifest.facts["tasks"]]
    for task in tasks:
        dataset = {"path": "stella/held-out", "revision": artefact.digest}
        task.metadata = task.metadata.model_copy(update={"dataset": dataset})
        task.data_loaded = True
    return tasks


def _retrieval(artefact: Artefact) -> AbsTask:
    task = HeldOutRetrieval()
    queries = read_task(artefact, "retrieval_queries")
    relevant = zip(queries.column("id").to_pylist(), queries.column("document").to_pylist(), strict=True)
    task.dataset = {
        "default": {
            "test": {
                "corpus": Dataset(read_task(artefact, "retrieval_corpus")),
                "queries": Dataset(queries.select(["id", "text"])),
                "relevant_docs": {query: {document: 1} for query, document in relevant},
                "top_ranked": None,
            }
        }
    }
    return task


def _classification(artefact: Artefact) -> AbsTask:
    task = HeldOutClassification()
    rows = read_task(artefact, "classification").to_pylist()
    splits = {
        split: Dataset.from_list([{"text": r["text"], "label": r["label"]} for r in rows if r["split"] == split])
        for split in ("train", "test")
    }
    task.dataset = DatasetDict(splits)
    return task


def _pair_classification(artefact: Artefact) -> AbsTask:
    task = HeldOutPairClassification()
    task.dataset = DatasetDict({"test": Dataset.from_list(read_task(artefact, "pair_classification").to_pylist())})
    return task
