"""Retrieval."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stella_assets.evaluation.kinds.base import TASK_KINDS, Sides, TaskKind
from stella_assets.storage.polars import pl

if TYPE_CHECKING:
    from stella_assets.evaluation.local_data import Splits
    from stella_assets.evaluation.samples import Evidence, Samples

FILES = {
    "corpus": ("id", "text"),
    "queries": ("id", "text"),
    "qrels": ("query_id", "doc_id", "score"),
}
"""Columns of each file of the folder; `corpus` may have a `title`, `qrels` a `split`."""
TREC_NAMES = {"ndcg": "ndcg_cut_{}", "map": "map_cut_{}", "recall": "recall_{}", "precision": "P_{}"}
"""trec_eval's names of mteb's scores at a rank."""


class Ranking(TaskKind):
    """Shared behaviour of retrieval and reranking: queries and documents, and measures per query."""

    # mteb's prediction files of a retrieval have all ranked documents; `watch_queries` keeps the measures only.
    WRITES_PREDICTIONS = False

    @classmethod
    def files(cls, place: Path) -> Mapping[Path, tuple[str, ...]]:
        """The three files of the folder; one file, where the kind has that layout and the place is a file."""
        if cls._is_one_file(place):
            return super().files(place)
        return {place / f"{name}.parquet": columns for name, columns in FILES.items()}

    @classmethod
    def fill(cls, task: Any, place: Path, splits: Splits) -> None:
        """Give a task its data from the folder or the file."""
        if cls._is_one_file(place):
            super().fill(task, place, splits)
            return
        task.dataset = {"default": {name: _read_split(place, name, splits) for name in task.eval_splits}}
        task.data_loaded = True

    @classmethod
    def _is_one_file(cls, place: Path) -> bool:
        return bool(cls.COLUMNS) and not place.is_dir()

    @classmethod
    def prompt_sides(cls, task: Any) -> Sides:
        """Queries and documents."""
        from mteb.types import PromptType

        return {"query": PromptType.query, "document": PromptType.document}

    @classmethod
    def samples(cls, task: Any, evidence: Evidence) -> Samples:
        """One sample per query: the measure that the main score is the mean of."""
        from stella_assets.evaluation.samples import NO_SAMPLES, Samples, sample

        # mteb computes other main scores, e.g. `mrr_at_10`, without trec_eval: they have no measure per query here.
        found = re.fullmatch(r"(\w+)_at_(\d+)", str(task.metadata.main_score))
        if found is None or found[1] not in TREC_NAMES:
            return NO_SAMPLES
        measure = TREC_NAMES[found[1]].format(found[2])
        return Samples(
            "mean",
            [
                sample(subset, split, query, measures[measure])
                for (subset, split), queries in evidence.per_query.items()
                for query, measures in queries.items()
            ],
        )


@TASK_KINDS.register
class Retrieval(Ranking):
    """Queries and the documents that answer them: a folder of `corpus.parquet`, `queries.parquet` and `qrels.parquet`.

    The score of a model is nDCG@10 of the documents by cosine.

    References:
        Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002.
        Thakur et al., "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models",
        arXiv:2104.08663.

    Example:
        In a recipe::

            evaluation:
              custom_tasks:
                - {kind: retrieval, name: OwnSearch, path: search}
    """

    kind: Literal["retrieval"]

    MTEB_TYPE = "Retrieval"
    MAIN_SCORE = "ndcg_at_10"

    @classmethod
    def matches(cls, task: Any) -> bool:
        """A reranking is an instance of the same class."""
        return super().matches(task) and task.metadata.type != "Reranking"


def retrieval_data(documents: Any, queries: Any, relevant: Any, candidates: Any) -> dict[str, Any]:
    """One split of a retrieval task; with `candidates`, of a reranking task.

    Args:
        documents: Rows of id, title and text.
        queries: Rows of id and text.
        relevant: By query, the judgement of each document.
        candidates: By query, the documents to rank; None to search in all of them.
    """
    from stella_assets.evaluation.local_data import to_dataset

    return {
        "corpus": to_dataset(documents),
        "queries": to_dataset(queries),
        "relevant_docs": relevant,
        "top_ranked": candidates,
    }


def _read_split(folder: Path, split: str, splits: Splits) -> dict[str, Any]:
    import numpy as np

    from stella_assets.evaluation.local_data import TaskDataError, read_table, require_filled, rows_of_split

    corpus, queries, qrels = (read_table(folder / f"{name}.parquet", columns) for name, columns in FILES.items())
    if corpus.is_empty() or not corpus["text"].str.strip_chars().str.len_chars().sum():
        raise TaskDataError(f"{folder / 'corpus.parquet'}: holds no text to search in.", "Fill it.")
    if "split" in qrels.columns:
        qrels = rows_of_split(folder / "qrels.parquet", qrels, split, splits)
    # A passage without text is found by its title, or never; anything else without a value is a mistake.
    for name, rows, columns in (("corpus", corpus, ["id"]), ("queries", queries, FILES["queries"])):
        require_filled(folder / f"{name}.parquet", rows, columns)
    require_filled(folder / "qrels.parquet", qrels, FILES["qrels"])
    whole = qrels["score"].cast(pl.Float64, strict=False)
    if not (whole == whole.round()).fill_null(False).all():  # trec_eval would take 0.5 for 0
        raise TaskDataError(f"{folder / 'qrels.parquet'}: `score` has values that are no whole numbers.", "Round them.")
    judged = qrels.select(pl.col("query_id", "doc_id").cast(pl.String), whole.cast(pl.Int64))
    # trec_eval takes identifiers as strings and judgements as integers.
    relevant: dict[str, dict[str, int]] = {}
    for query, document, score in judged.iter_rows():
        relevant.setdefault(query, {})[document] = score
    title = pl.col("title").fill_null("") if "title" in corpus.columns else pl.lit("").alias("title")
    documents = corpus.select(pl.col("id").cast(pl.String), title, pl.col("text").fill_null(""))
    # Queries without a judgement would count as failures.
    asked = queries.select(pl.col("id").cast(pl.String), "text").filter(pl.col("id").is_in(list(relevant)))
    if asked.is_empty():
        raise TaskDataError(f"{folder / 'qrels.parquet'}: names no query of queries.parquet.", "Correct the ids.")
    # Some unknown documents are normal in published judgements; only unknown ones mean that the ids do not fit.
    unknown = np.setdiff1d(judged["doc_id"].unique().to_numpy(), documents["id"].to_numpy())
    if len(unknown) == judged["doc_id"].n_unique():
        raise TaskDataError(f"{folder / 'qrels.parquet'}: names no text of corpus.parquet.", "Correct the ids.")
    return retrieval_data(documents, asked, relevant, None)
