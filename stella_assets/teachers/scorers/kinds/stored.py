"""The scorer kind `stored`: products of vectors that the store has already, at no cost of a model.

Shapes: N pairs, T texts of a block, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from stella_assets.core.config import Name
from stella_assets.core.progress import progress_bar
from stella_assets.storage.keys import Positions, find_sorted
from stella_assets.storage.polars import pl
from stella_assets.teachers.scorers.base import PAIR_SCORERS, PairScorerConfig, Scored, Scores, Scoring
from stella_assets.teachers.scorers.texts import keys_of
from stella_assets.teachers.snapshot import Snapshot

BLOCK_PAIRS = 4096
"""Pairs whose vectors are in memory at a time: at most 2 x 4096 texts, 128 MiB for 4096 dimensions in float32."""


@PAIR_SCORERS.register
class StoredScorer(PairScorerConfig):
    """The teachers' stored vectors: the cosine of the two texts."""

    icons: ClassVar[frozenset[str]] = frozenset({"lancedb"})
    reads_vectors: ClassVar[bool] = True

    kind: Literal["stored"]
    teacher: Name | None = Field(
        default=None, description="one teacher; the concatenation of all, as the student learns it, where left out"
    )

    def require_fit(self, place: str, teachers: Sequence[str]) -> None:
        """Its teacher is one of the recipe's."""
        if self.teacher is not None and self.teacher not in teachers:
            raise ValueError(f"{place}.teacher names {self.teacher!r}; the recipe has {', '.join(teachers)}")

    def taught_by(self, teachers: Sequence[str]) -> Sequence[str]:
        """Its teacher, or all of the concatenation."""
        return teachers if self.teacher is None else (self.teacher,)

    def score(self, pairs: pl.DataFrame, scoring: Scoring) -> Scored:
        """Cosines in float64 of the stored vectors, block by block."""
        assert scoring.snapshot is not None, "the step reads the snapshot of kinds that need it"
        snapshot = scoring.snapshot
        query_N, has_query_N = find_sorted(snapshot.keys, keys_of(pairs["query"]))
        document_N, has_document_N = find_sorted(snapshot.keys, keys_of(pairs["document"]))
        there = np.flatnonzero(has_query_N & has_document_N)
        scores_N: Scores = np.full(len(pairs), np.nan)
        with progress_bar(len(there), self.name, "pairs") as bar:
            for start in range(0, len(there), BLOCK_PAIRS):
                block = there[start : start + BLOCK_PAIRS]
                scores_N[block] = self._cosines(snapshot, query_N[block], document_N[block])
                bar.update(len(block))
        without = len(pairs) - len(there)
        return Scored(scores_N, {"a text without a stored vector": without} if without else {})

    def _cosines(self, snapshot: Snapshot, query_N: Positions, document_N: Positions) -> Scores:
        # Each text once: pairs are sorted by query, so a query would be read as often as it has documents.
        rows_T, at = np.unique(np.concatenate([query_N, document_N]), return_inverse=True)
        if self.teacher is None:
            vectors_TD = snapshot.layout.targets(snapshot.vectors(rows_T))
        else:
            vectors_TD = snapshot.vectors(rows_T, [self.teacher]).astype(np.float32)
        query_at, document_at = np.split(at, 2)
        # Row by row, so that a score does not depend on what else is in its block.
        return np.einsum("nd,nd->n", vectors_TD[query_at], vectors_TD[document_at], dtype=np.float64)
