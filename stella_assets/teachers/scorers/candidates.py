"""The candidates of a query: the documents that it is compared with, its answers first."""

from __future__ import annotations

from collections.abc import Sequence

from stella_assets.corpus.pairs import PairTables
from stella_assets.storage.polars import pl
from stella_assets.teachers.mined_negatives import SPLITS, MinedNegatives

ORIGINS = ("positive", "stated", "mined")
"""Where a candidate comes from: an answer, a negative of the source, a mined negative."""


def candidate_pairs(
    pairs: PairTables, mined: MinedNegatives | None = None, splits: Sequence[str] = SPLITS
) -> pl.DataFrame:
    """All queries with their candidates.

    Args:
        pairs: Of the corpus: answers and negatives that the sources state.
        mined: Further negatives.
        splits: Whose queries are wanted; nothing learns from test queries.

    Returns:
        `query`, `document`, `split`, `origin` and `rank`: from 1 within a query, first its answers by id, then its
        negatives by their ranks. By query and rank; each document once per query, and never the query itself.
    """
    answers = pairs.pairs().select("query", "split", document="positive", rank=pl.lit(0, pl.Int64))
    # A query is in one split, which its answers tell; a negative that a source states for no answer has no list.
    split_of = answers.select("query", "split").unique("query")
    stated = pairs.negatives().select("query", "rank", document="negative").join(split_of, on="query")
    parts = [answers, stated]
    if mined is not None:
        parts.append(mined.negatives().select("query", "rank", "split", document="negative"))
    columns = ["query", "document", "split", "rank"]
    rows = pl.concat(
        part.select(columns).with_columns(place=pl.lit(place, pl.Int64)) for place, part in enumerate(parts)
    )
    rows = rows.filter(pl.col("split").is_in(splits), pl.col("query") != pl.col("document"))
    rows = rows.sort("query", "place", "rank", "document")
    rows = rows.unique(["query", "document"], keep="first", maintain_order=True)
    return rows.select(
        "query",
        "document",
        "split",
        origin=pl.col("place").replace_strict(list(range(len(ORIGINS))), ORIGINS, return_dtype=pl.String),
        rank=pl.int_range(1, pl.len() + 1).over("query"),
    )
