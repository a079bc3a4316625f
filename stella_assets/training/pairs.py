"""Pairs of texts in batches: which texts of a batch answer one another, and which pairs have a score.

Shapes: N pairs of a split, M texts of a split, B texts of a batch, P its pairs, C its scored pairs, T rows of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stella_assets.corpus.pairs import PairTables
from stella_assets.storage.keys import find_sorted, to_keys
from stella_assets.storage.polars import pl
from stella_assets.training.data import Batch, Reading, TrainingData


@dataclass(frozen=True)
class BatchPairs:
    """The pairs of a batch. Places are positions among the texts of the batch.

    Attributes:
        query_P: Place of the query of each pair.
        positive_P: Place of what answers it.
        answers_BB: Whether the text of a row is a query that the text of a column is known to answer.
        negative_BB: Whether the text of a row is a query that the text of a column is known not to answer.
        first_C: Place of the first text of each scored pair.
        second_C: Place of the second.
        score_C: The score, float64.
    """

    query_P: Tensor
    positive_P: Tensor
    answers_BB: Tensor
    negative_BB: Tensor
    first_C: Tensor
    second_C: Tensor
    score_C: Tensor

    def to(self, device: torch.device) -> BatchPairs:
        """The same pairs on a device."""
        # Scores are compared with one another only, and not every device has float64.
        scores = self.score_C if device.type == "cpu" else self.score_C.float()
        return BatchPairs(**{name: tensor.to(device) for name, tensor in {**vars(self), "score_C": scores}.items()})


class PairRows:
    """The pairs of one split, as positions of its texts; scored pairs are rows among the others."""

    def __init__(
        self,
        tables: PairTables,
        texts: TrainingData,
        split: str,
        hard_negatives: int = 0,
        negatives: Sequence[pl.DataFrame] = (),
    ) -> None:
        """Find the texts of the pairs.

        Args:
            tables: The pairs of the corpus.
            texts: The split. Pairs with a text that it does not have are left out, e.g. with a semantic duplicate.
            split: Its name.
            hard_negatives: Negatives of a query that are used at most.
            negatives: Tables of `query`, `negative`, `rank` and `split`; those of an earlier one are used first.
        """
        keys = texts.snapshot.keys[texts.rows]
        of_split = pl.col("split") == split
        pairs = tables.pairs().filter(of_split).select("query", document="positive", score=pl.lit(None, pl.Float64))
        scores = tables.scores().filter(of_split).select("query", "document", "score")
        # By the ids of both texts, so that the first rows are a random sample of both kinds.
        rows = pl.concat([pairs, scores]).sort("query", "document", "score")
        found, query_T, document_T = _positions(keys, rows, "document")
        self.left_out = len(rows) - len(found)
        self._texts = len(texts)
        self.query_N, self.document_N = query_T, document_T
        # NaN for pairs without a score.
        self.score_N = found["score"].fill_null(np.nan).to_numpy()
        scored_N = ~np.isnan(self.score_N)
        self.pairs, self.scored = int((~scored_N).sum()), int(scored_N.sum())
        self._answers = _Lists(query_T[~scored_N], document_T[~scored_N])
        stated = [
            table.filter(of_split, pl.col("rank") <= hard_negatives).select(
                "query", "negative", rank=pl.col("rank") + number * hard_negatives
            )
            for number, table in enumerate(negatives)
        ]
        none = pl.DataFrame(schema={"query": pl.String, "negative": pl.String, "rank": pl.Int64})
        ranked = pl.concat([none, *stated]).sort("query", "rank").unique(["query", "negative"], maintain_order=True)
        ranked = ranked.filter(pl.int_range(pl.len()).over("query") < hard_negatives)
        _, query_T, negative_T = _positions(keys, ranked, "negative")
        self.negatives = len(query_T)
        self._negatives = _Lists(query_T, negative_T)

    def __len__(self) -> int:
        return len(self.query_N)

    def others(self) -> np.ndarray:
        """Positions of the texts that are in none of the pairs, ascending."""
        return np.setdiff1d(np.arange(self._texts), np.concatenate([self.query_N, self.document_N]))

    def batch(self, rows: np.ndarray, further: np.ndarray) -> tuple[np.ndarray, BatchPairs]:
        """The texts of some rows, each once, and how they are related.

        Args:
            rows: Positions of pairs.
            further: Positions of texts that are neither a query nor a document here.

        Returns:
            Positions `[B]` of texts in the split, ascending, and the pairs.
        """
        query, document, score = self.query_N[rows], self.document_N[rows], self.score_N[rows]
        plain = np.isnan(score)
        _, negative = self._negatives.of(np.unique(query[plain]))
        texts_B = np.unique(np.concatenate([query, document, negative, further]))

        def places(positions: np.ndarray) -> Tensor:
            return torch.from_numpy(np.searchsorted(texts_B, positions))

        return texts_B, BatchPairs(
            places(query[plain]),
            places(document[plain]),
            self._answers.among(texts_B),
            self._negatives.among(texts_B),
            places(query[~plain]),
            places(document[~plain]),
            torch.from_numpy(score[~plain]),
        )


class PairFeed:
    """Batches of pairs, read like batches of texts: the texts of a batch, each once, with their pairs.

    Args:
        texts: The split.
        pairs: Its pairs.
        anchors: Texts of no pair that are drawn for each batch, for the losses on the teachers' vectors.
        seed: Of the draw.

    Attributes:
        lengths: Tokens of each pair.
    """

    def __init__(self, texts: TrainingData, pairs: PairRows, anchors: int = 0, seed: int = 0) -> None:
        self._texts, self._pairs, self._seed = texts, pairs, seed
        self._others = pairs.others() if anchors else np.empty(0, dtype=np.int64)
        self._anchors = min(anchors, len(self._others))
        self.lengths = texts.lengths[pairs.query_N] + texts.lengths[pairs.document_N]

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, chosen: Sequence[np.ndarray], reading: Reading) -> list[Batch]:
        """Some batches; see `TrainingData.read`.

        Args:
            chosen: Positions of the pairs of each batch.
            reading: How they are read.
        """
        parts = [self._pairs.batch(rows, self._drawn(rows)) for rows in chosen]
        batches = self._texts.read([texts_B for texts_B, _ in parts], reading)
        return [
            replace(batch, targets=batch.targets.with_pairs(pairs))
            for batch, (_, pairs) in zip(batches, parts, strict=True)
        ]

    def _drawn(self, rows: np.ndarray) -> np.ndarray:
        if not self._anchors:
            return self._others[:0]  # a draw of none from none is an error
        # By the pairs of the batch, which are others in each epoch: a resumed run draws the same.
        draw = np.random.default_rng([self._seed, *rows.tolist()])
        return self._others[draw.choice(len(self._others), self._anchors, replace=False, shuffle=False)]


class _Lists:
    """For each query a list of texts."""

    def __init__(self, query_T: np.ndarray, text_T: np.ndarray) -> None:
        order = np.argsort(query_T, kind="stable")
        self._query_T, self._text_T = query_T[order], text_T[order]

    def of(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each query as often as it has texts, and the texts."""
        starts = np.searchsorted(self._query_T, queries)
        counts = np.searchsorted(self._query_T, queries, side="right") - starts
        # Positions start, start + 1, ... of each query, without a loop over queries.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(queries, counts), self._text_T[np.repeat(starts, counts) + within]

    def among(self, texts_B: np.ndarray) -> Tensor:
        """`[B, B]`: whether the text of a column is in the list of the text of a row."""
        query, text = self.of(texts_B)
        there = np.isin(text, texts_B)
        found = np.zeros((len(texts_B), len(texts_B)), dtype=bool)
        found[np.searchsorted(texts_B, query[there]), np.searchsorted(texts_B, text[there])] = True
        return torch.from_numpy(found)


def _positions(keys_M: np.ndarray, rows: pl.DataFrame, second: str) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """The rows whose two texts are there, and the positions of these."""
    there = np.ones(len(rows), dtype=bool)
    places = []
    for column in ("query", second):
        at, found = find_sorted(keys_M, to_keys(rows[column].to_list()))
        there &= found
        places.append(at)
    return rows.filter(there), places[0][there], places[1][there]
