"""Six public tasks, one or two a type, through mteb's own task classes, read from a folder of parquet files.

STSBenchmark, SICK-R, Banking77 and SciFact are scored on the rows that MTEB has. The newsgroups' subject lines and
TrecQA stand in for a clustering and a reranking task.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskClustering, AbsTaskReranking, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.abstask import AbsTask

from stella_assets.evaluation.encoders import Embedder, MtebEncoder
from stella_assets.evaluation.mteb_tasks import task_metadata


class STSBenchmark(AbsTaskSTS):
    """Test split, as MTEB's."""

    metadata = task_metadata("STSBenchmark", "STS", "cosine_spearman", "STSBenchmark")


class SickR(AbsTaskSTS):
    """All 9,927 rows, as MTEB's."""

    metadata = task_metadata("SICK-R", "STS", "cosine_spearman", "SICK-R")
    min_score, max_score = 1, 5


class Banking77(AbsTaskClassification):
    """As MTEB's."""

    metadata = task_metadata("Banking77Classification", "Classification", "accuracy", "Banking77Classification")


class NewsgroupSubjects(AbsTaskClustering):
    """Subject lines in 20 groups."""

    metadata = task_metadata("TwentyNewsgroups", "Clustering", "v_measure", "TwentyNewsgroups")
    max_fraction_of_documents_to_embed = None
    max_documents_per_cluster = 2500


class SciFact(AbsTaskRetrieval):
    """As MTEB's."""

    metadata = task_metadata("SciFact", "Retrieval", "ndcg_at_10", "SciFact")


class TrecQA(AbsTaskReranking):
    """Answer sentences of 68 test questions."""

    metadata = task_metadata("TrecQA", "Reranking", "map_at_1000", "TrecQA")


def load_tasks(folder: Path) -> list[AbsTask]:
    """The six tasks with their data."""

    def rows(name: str) -> list[dict[str, Any]]:
        return pq.read_table(folder / f"{name}.parquet").to_pylist()

    def pairs(chosen: list[dict[str, Any]]) -> DatasetDict:
        columns = ("sentence1", "sentence2", "score")
        return DatasetDict({"test": Dataset.from_list([{k: row[k] for k in columns} for row in chosen])})

    sts, sick = STSBenchmark(), SickR()
    sts.dataset = pairs([row for row in rows("STSBenchmark") if row["split"] == "test"])
    sick.dataset = pairs(rows("SICK-R"))
    banking = Banking77()
    banking_rows = rows("Banking77Classification")
    labels = sorted({row["label"] for row in banking_rows})
    banking.dataset = DatasetDict(
        {
            split: Dataset.from_list(
                [{"text": r["text"], "label": labels.index(r["label"])} for r in banking_rows if r["split"] == split]
            )
            for split in ("train", "test")
        }
    )
    news = NewsgroupSubjects()
    news_rows = rows("TwentyNewsgroups_subjects")
    news.dataset = DatasetDict(
        {"test": Dataset.from_list([{"sentences": row["text"], "labels": row["label"]} for row in news_rows])}
    )
    tasks = [sts, sick, banking, news, _scifact(folder / "SciFact"), _trec(rows("TrecQA_rerank"))]
    for task in tasks:
        task.data_loaded = True
    return tasks


def _scifact(folder: Path) -> AbsTask:
    task = SciFact()
    corpus, queries, qrels = (pq.read_table(folder / f"{name}.parquet") for name in ("corpus", "queries", "qrels"))
    relevant: dict[str, dict[str, int]] = {}
    for row in qrels.to_pylist():
        relevant.setdefault(str(row["query_id"]), {})[str(row["doc_id"])] = int(row["score"])
    documents = [{"id": str(r["id"]), "title": r["title"], "text": r["text"]} for r in corpus.to_pylist()]
    asked = [{"id": str(r["id"]), "text": r["text"]} for r in queries.to_pylist() if str(r["id"]) in relevant]
    task.dataset = _retrieval(documents, asked, relevant, None)
    return task


def _trec(rows: list[dict[str, Any]]) -> AbsTask:
    task = TrecQA()
    documents: dict[str, str] = {}
    asked, relevant, top = [], {}, {}
    for number, row in enumerate(row for row in rows if row["split"] == "test"):
        ids = {}
        for place, text in enumerate([*row["positive"], *row["negative"]]):
            ids[f"{number}-{place}"] = int(place < len(row["positive"]))
            documents[f"{number}-{place}"] = text
        asked.append({"id": f"q{number}", "text": row["query"]})
        relevant[f"q{number}"], top[f"q{number}"] = ids, list(ids)
    corpus = [{"id": key, "title": "", "text": text} for key, text in documents.items()]
    task.dataset = _retrieval(corpus, asked, relevant, top)
    return task


def _retrieval(
    documents: list[dict[str, str]], queries: list[dict[str, str]], relevant: Any, top: Any
) -> dict[str, Any]:
    return {
        "default": {
            "test": {
                "corpus": Dataset.from_list(documents),
                "queries": Dataset.from_list(queries),
                "relevant_docs": relevant,
                "top_ranked": top,
            }
        }
    }


def evaluate(embedder: Embedder, name: str, folder: Path) -> dict[str, float]:
    """The main score of each task, times 100, and their mean as `mean`."""
    import mteb

    logging.getLogger("mteb").setLevel(logging.ERROR)
    encoder: Any = MtebEncoder(embedder, name, "local")
    results = mteb.evaluate(encoder, load_tasks(folder), cache=None, co2_tracker=False, show_progress_bar=False)
    scores = {result.task_name: 100 * float(result.get_score()) for result in results.task_results}
    return {**scores, "mean": sum(scores.values()) / len(scores)}
