"""The texts of a corpus that a retriever finds for a query, or puts first among those that a release found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from stella_assets.corpus.read import CorpusTexts
from stella_assets.release.search import COLUMNS, Hit

if TYPE_CHECKING:
    from stella_assets.release.retrievers.index import TokenIndex
    from stella_assets.students.retriever import Retriever


@dataclass(frozen=True, order=True)
class Ranked:
    """A text of the corpus.

    Attributes:
        score: Of the retriever: MaxSim, or what a reranker gives.
        id: Of the text.
        text: As the corpus has it.
        source: Where it comes from.
        origin: Place within the source.
        split: `train`, `dev` or `test`.
        licence: Of the text.
    """

    score: float
    id: str
    text: str
    source: str
    origin: str
    split: str
    licence: str


def find_by_tokens(
    query: str, index: TokenIndex, retriever: Retriever, texts: CorpusTexts, top: int, *, exact: bool
) -> list[Ranked]:
    """The indexed documents with the largest MaxSim, the nearest first.

    Args:
        query: Without a marker.
        index: Of the documents.
        retriever: That made its vectors.
        texts: The corpus, which has the documents.
        top: How many.
        exact: Whether every document is compared; else the index is asked.
    """
    [query_QD] = retriever.model.encode_query([query], convert_to_numpy=True, show_progress_bar=False)
    scores = dict(index.nearest(query_QD, top, exact=exact))
    wanted = pa.array(list(scores), pa.string())
    found = [
        row
        for batch in texts.scan(COLUMNS)
        for row in batch.filter(pc.is_in(batch.column("id"), value_set=wanted)).to_pylist()
    ]
    return _ordered(Ranked(scores[row["id"]], *row.values()) for row in found)


def rerank(query: str, hits: Sequence[Hit], retriever: Retriever, top: int) -> list[Ranked]:
    """What a release found, in the order of a reranker's scores.

    Args:
        query: Without a prompt.
        hits: Of the release.
        retriever: That scores pairs.
        top: How many are kept.
    """
    scores = retriever.score_pairs([query] * len(hits), [hit.text for hit in hits])
    ranked = (
        Ranked(float(score), hit.id, hit.text, hit.source, hit.origin, hit.split, hit.licence)
        for score, hit in zip(scores, hits, strict=True)
    )
    return _ordered(ranked)[:top]


def _ordered(ranked: Iterable[Ranked]) -> list[Ranked]:
    return sorted(ranked, key=lambda each: (-each.score, each.id))
