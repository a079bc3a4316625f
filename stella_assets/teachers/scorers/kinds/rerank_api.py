"""The scorer kind `rerank_api`: a reranker that others run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stella_assets.teachers.scorers.base import PAIR_SCORERS
from stella_assets.teachers.scorers.dialects import RERANK_DIALECTS
from stella_assets.teachers.scorers.paid import PaidScorer


@PAIR_SCORERS.register
class RerankApiScorer(PaidScorer):
    """A reranker of a provider, or of a server of your own, that is asked over HTTP: one request for each query."""

    kind: Literal["rerank_api"]
    service: RERANK_DIALECTS.union() = Field(  # type: ignore[valid-type]
        description="how it is asked, and for which model: see the dialects"
    )
