"""The scorer kind `retriever`: a retriever of the same recipe, which was trained before."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from stella_assets.core.config import Name
from stella_assets.teachers.scorers.base import PAIR_SCORERS, PairModel, Scoring
from stella_assets.teachers.scorers.local import LocalScorer


@PAIR_SCORERS.register
class RetrieverScorer(LocalScorer):
    """A retriever of the recipe, e.g. a late interaction model that a reranker learns from, or the other way round."""

    icons: ClassVar[frozenset[str]] = frozenset({"pytorch"})

    kind: Literal["retriever"]
    retriever: Name = Field(description="name of one of `retrievers`, which is trained first")

    def identity_settings(self) -> dict[str, Any]:
        """Its kind and name: what it scores with is a dependency."""
        return self.settings("retriever")

    def scored_by(self) -> str:
        """Its `retriever`."""
        return self.retriever

    def describe(self, scoring: Scoring) -> dict[str, Any]:
        """The digest of the trained retriever."""
        assert scoring.retriever is not None, "the step reads the retriever of kinds that ask for one"
        return {"kind": self.kind, "retriever": scoring.retriever.digest}

    def open(self, scoring: Scoring) -> PairModel:
        """The retriever."""
        assert scoring.retriever is not None, "the step reads the retriever of kinds that ask for one"
        return scoring.retriever.load(scoring.compute)
