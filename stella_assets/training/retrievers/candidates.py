"""Which documents are candidates of which query: what answers it, and negatives by rank, with their scores.

Shapes: N lists of a split, C candidates of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stella_assets.storage.polars import pl

NONE = -1
"""In place of a candidate, where a list has fewer."""


@dataclass(frozen=True)
class Candidates:
    """Lists of candidates. Texts are positions in the corpus, whose texts are in the order of their ids.

    Attributes:
        ids: Of all texts of the corpus.
        query_N: The query of each list.
        document_NC: Its candidates: one that answers it, then negatives by rank; `NONE` where there are fewer.
        score_NC: The scores of the candidates, float32; NaN where there is none.
        known_query: The query of every known pair of the split.
        known_positive: What answers it.
        dropped: What was left out, by reason: lists, but for `candidates ...`.
    """

    ids: pl.Series
    query_N: np.ndarray
    document_NC: np.ndarray
    score_NC: np.ndarray
    known_query: np.ndarray
    known_positive: np.ndarray
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def texts(self) -> np.ndarray:
        """Positions of all texts of the lists, ascending, each once."""
        found: np.ndarray = np.unique(np.concatenate([self.query_N, self.document_NC.ravel()]))
        return found[found != NONE]

    @property
    def deviation(self) -> float:
        """Standard deviation of the scores within a list; 1 where there are none."""
        if not np.isfinite(self.score_NC).any():
            return 1.0
        variance_N = np.nanvar(self.score_NC[np.isfinite(self.score_NC).any(axis=1)].astype(np.float64), axis=1)
        # Lists whose scores are all equal are dropped before, so it is above 0.
        return float(np.sqrt(variance_N.mean()))

    @property
    def center(self) -> float:
        """Mean of all scores; 0 where there are none."""
        known = self.score_NC[np.isfinite(self.score_NC)]
        return float(known.astype(np.float64).mean()) if known.size else 0.0


def find_candidates(
    ids: pl.Series,
    pairs: pl.DataFrame,
    negatives: Sequence[pl.DataFrame],
    scores: pl.DataFrame | None,
    *,
    most: int,
    least: int,
) -> Candidates:
    """The lists of a split: one for each pair.

    Args:
        ids: Of all texts of the corpus, ascending.
        pairs: `query` and `positive` of the split, by id.
        negatives: Tables of `query`, `negative` and `rank` of the split; those of an earlier one are used first.
        scores: `query`, `document` and `score`; None for lists without scores. Candidates without a score are left out,
            and so are lists whose scores are all equal, as they put nothing in an order.
        most: Candidates of a list at most.
        least: Candidates of a list at least.
    """
    places = pl.DataFrame({"id": ids, "at": np.arange(len(ids), dtype=np.int64)})
    known = _at(_at(pairs.select("query", document="positive"), "query", places), "document", places)
    dropped = {"a text is missing": len(pairs) - len(known)}
    # By the ids of both texts, so that the first lists are a random sample.
    known = known.sort("query", "document").unique(maintain_order=True)
    rows = _ranked(known.with_row_index("list"), negatives, places, dropped)
    if scores is not None:
        rows = _scored(rows, scores, places, dropped)
    rows = rows.filter(pl.int_range(pl.len()).over("list") < most)
    count = len(known) - dropped.pop("lists", 0)
    rows = rows.filter(pl.len().over("list") >= least)
    dropped["too few candidates"] = count - rows["list"].n_unique()
    if scores is not None:
        before = rows["list"].n_unique()
        rows = rows.filter(pl.col("score").min().over("list") < pl.col("score").max().over("list"))
        dropped["scores all equal"] = before - rows["list"].n_unique()
    return _arrays(ids, rows, known, dropped, most)


def _at(frame: pl.DataFrame, column: str, places: pl.DataFrame) -> pl.DataFrame:
    """With the position in the corpus in place of the id; rows whose text is not there are left out."""
    found = frame.join(places, left_on=column, right_on="id", how="inner", maintain_order="left")
    return found.drop(column).rename({"at": column})


def _ranked(
    lists: pl.DataFrame, negatives: Sequence[pl.DataFrame], places: pl.DataFrame, dropped: dict[str, int]
) -> pl.DataFrame:
    """`list`, `query`, `document` and `rank` of each candidate, by list and rank; what answers the query has rank 0."""
    stated = [
        table.select("query", document="negative", table=pl.lit(number), rank=pl.col("rank").cast(pl.Int64))
        for number, table in enumerate(negatives, 1)
    ]
    none = {"query": pl.String, "document": pl.String, "table": pl.Int32, "rank": pl.Int64}
    every = pl.concat([pl.DataFrame(schema=none), *stated])
    found = _at(_at(every, "query", places), "document", places)
    dropped["candidates whose text is missing"] = len(every) - len(found)
    ranked = found.sort("query", "table", "rank").unique(["query", "document"], maintain_order=True)
    ranked = ranked.select("query", "document", rank=1 + pl.int_range(pl.len()).over("query"))
    columns = ("list", "query", "document", "rank")
    positive = lists.with_columns(rank=pl.lit(0, pl.Int64)).select(columns)
    return pl.concat([positive, lists.drop("document").join(ranked, on="query").select(columns)]).sort("list", "rank")


def _scored(rows: pl.DataFrame, scores: pl.DataFrame, places: pl.DataFrame, dropped: dict[str, int]) -> pl.DataFrame:
    """With a score each. A list whose answer has none is dropped."""
    # In the format that they are learnt in: scores that are equal there put nothing in an order.
    scored = scores.select("query", "document", pl.col("score").cast(pl.Float32)).filter(pl.col("score").is_finite())
    scored = scored.unique(["query", "document"], keep="first", maintain_order=True)
    table = _at(_at(scored, "query", places), "document", places)
    joined = rows.join(table, on=["query", "document"], how="left", maintain_order="left")
    before = joined["list"].n_unique()
    answered = joined.filter((pl.col("rank") == 0) & pl.col("score").is_not_null()).select("list")
    joined = joined.join(answered, on="list", how="semi", maintain_order="left")
    dropped["the answer has no score"] = dropped["lists"] = before - len(answered)
    kept = joined.filter(pl.col("score").is_not_null())
    dropped["candidates without a score"] = len(joined) - len(kept)
    return kept


def _arrays(ids: pl.Series, rows: pl.DataFrame, known: pl.DataFrame, dropped: dict[str, int], most: int) -> Candidates:
    # Numbered anew from 0, without those that were dropped.
    row = rows["list"].rle_id().to_numpy()
    column = rows.select(column=pl.int_range(pl.len()).over("list"))["column"].to_numpy()
    count = int(row[-1]) + 1 if len(row) else 0
    document_NC = np.full((count, most), NONE, dtype=np.int64)
    score_NC = np.full((count, most), np.nan, dtype=np.float32)
    document_NC[row, column] = rows["document"].to_numpy()
    if "score" in rows.columns:
        score_NC[row, column] = rows["score"].to_numpy()
    query_N = rows.filter(pl.Series(column == 0))["query"].to_numpy()
    return Candidates(
        ids, query_N, document_NC, score_NC, known["query"].to_numpy(), known["document"].to_numpy(), dropped
    )
