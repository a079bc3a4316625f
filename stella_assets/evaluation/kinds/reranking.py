"""Reranking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from stella_assets.evaluation.kinds.base import TASK_KINDS
from stella_assets.evaluation.kinds.retrieval import Ranking, retrieval_data
from stella_assets.storage.polars import pl


@TASK_KINDS.register
class Reranking(Ranking):
    """Queries, each with texts that answer it and texts that do not; or a folder as for retrieval.

    The score of a model is the mean average precision of each query's texts by cosine.

    References:
        Muennighoff et al., "MTEB: Massive Text Embedding Benchmark", arXiv:2210.07316, section 3.2.

    Example:
        In a recipe::

            evaluation:
              custom_tasks:
                - {kind: reranking, name: OwnAnswers, path: answers.parquet}
    """

    kind: Literal["reranking"]

    MTEB_TYPE = "Reranking"
    MAIN_SCORE = "map_at_1000"
    COLUMNS = ("query", "positive", "negative")

    @classmethod
    def matches(cls, task: Any) -> bool:
        """Some of mteb's rerankings are instances of its retrieval class."""
        from mteb import abstasks

        # So the type in the metadata decides, and not the class.
        return isinstance(task, abstasks.AbsTaskRetrieval) and task.metadata.type == cls.MTEB_TYPE

    @classmethod
    def dataset(cls, task: Any, place: Path, parts: Mapping[str, pl.DataFrame]) -> Any:
        """Each query with its candidates."""
        return {"default": {name: _candidates(place, part) for name, part in parts.items()}}


def _candidates(place: Path, part: pl.DataFrame) -> dict[str, Any]:
    from stella_assets.evaluation.local_data import TaskDataError

    documents: dict[str, str] = {}
    queries, relevant, candidates = [], {}, {}
    for number, (query, positive, negative) in enumerate(part.select(Reranking.COLUMNS).iter_rows()):
        if not positive or not negative:
            raise TaskDataError(
                f"{place}: query {query!r} has no {'negative' if positive else 'positive'} text, so its ranking has "
                "no meaning.",
                "Remove it.",
            )
        # Ids are unique per query, so that a text can be a candidate of several queries.
        ids = {f"{number}-{rank}": int(rank < len(positive)) for rank in range(len(positive) + len(negative))}
        documents |= dict(zip(ids, [*positive, *negative], strict=True))
        queries.append({"id": f"q{number}", "text": query})
        relevant[f"q{number}"], candidates[f"q{number}"] = ids, list(ids)
    corpus = [{"id": key, "title": "", "text": text} for key, text in documents.items()]
    return retrieval_data(corpus, queries, relevant, candidates)
