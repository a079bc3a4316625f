"""What every reranking service is: one query with its documents in a request, one score each in the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from stella_assets.core.registry import Registry
from stella_assets.teachers.api.answers import place
from stella_assets.teachers.api.errors import AnswerError
from stella_assets.teachers.api.service import Service


class ScoreService(Service):
    """What services share that answer with one score for each text; the role of texts is their query."""

    gives: ClassVar[str] = "scores"

    def dim(self) -> int:
        """1: a score."""
        return 1

    def accept(self, vectors: np.ndarray, dim: int | None) -> np.ndarray:
        """Scores `[n, 1]` as they are.

        Raises:
            AnswerError: One is not a finite number.
        """
        del dim
        if (odd := np.flatnonzero(~np.isfinite(vectors[:, 0]))).size:
            raise AnswerError(f"it has numbers that are not finite, first at index {odd[0]}")
        return vectors

    def identity(self) -> dict[str, Any]:
        """All that its scores depend on in addition to the two texts: no key."""
        server = self.server or self.base_url.split("://", 1)[1]
        return {**self.settings("base_url", "server", *self.unhashed), "server": server}


class RerankService(ScoreService):
    """Settings that every reranking service has.

    A dialect is a subclass with a field `dialect: Literal["..."]`, registered with `RERANK_DIALECTS`. It must define
    `request` and `parse`.
    """

    def price_list(self) -> str:
        """Apart from the same provider's vectors, which have other limits."""
        return f"{self.dialect}_rerank"

    def counted(self, text: str, role: str) -> str:
        """Both texts: the model reads the query with each document."""
        return role + text


def scores_by_index(rows: Iterable[Mapping[str, Any]], count: int) -> np.ndarray:
    """Scores `[count, 1]` in the order of the request; services answer with the best document first.

    Args:
        rows: With `index` and `relevance_score`.
        count: Documents of the request.

    Raises:
        AnswerError: A row is missing, double or too many, or a score is not a number.
    """
    return place(((row["index"], [row["relevance_score"]]) for row in rows), count, ScoreService.gives)


RERANK_DIALECTS: Registry[RerankService] = Registry("rerank dialect", key="dialect")
