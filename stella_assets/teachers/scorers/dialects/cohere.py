"""The rerank dialect `cohere`: version 2 of Cohere's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, ClassVar, Literal

from pydantic import Field

from stella_assets.core.config import Positive
from stella_assets.teachers.api.answers import Parsed, billed
from stella_assets.teachers.api.service import Problem, Request
from stella_assets.teachers.scorers.dialects.base import RERANK_DIALECTS, RerankService, scores_by_index

CHUNK_TOKENS, SEARCH_CHUNKS = 500, 100
"""A document is billed as so many chunks of this many tokens, the query included; so many chunks are one search."""


@RERANK_DIALECTS.register
class CohereRerank(RerankService):
    """Cohere. It bills searches and not tokens: up to 100 documents of up to 500 tokens are one."""

    bills: ClassVar[str] = "searches"

    dialect: Literal["cohere"]
    base_url: str = Field("https://api.cohere.com", description="of the server, to which `/v2/rerank` is appended")
    max_tokens_per_doc: Positive = Field(4096, description="tokens of a document that are read; the rest is cut off")

    def bound(self, tokens: Sequence[int]) -> int:
        """Searches."""
        return max(1, ceil(sum(ceil(count / CHUNK_TOKENS) for count in tokens) / SEARCH_CHUNKS))

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/v2/rerank`; without `top_n`, all documents get a score."""
        body = {
            "model": self.model,
            "query": role,
            "documents": list(texts),
            "max_tokens_per_doc": self.max_tokens_per_doc,
        }
        return Request("/v2/rerank", body)

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows by their `index`."""
        units = ((answer.get("meta") or {}).get("billed_units") or {}).get("search_units")
        searches = billed(round(units)) if isinstance(units, int | float) else None
        return Parsed(scores_by_index(answer["results"], count), searches, str(answer.get("id") or ""))

    def is_exhausted(self, problem: Problem) -> bool:
        """Whether a trial key has used up its month."""
        words = problem.message.lower()
        return "month" in words or "trial key" in words
