"""The rerank dialect `voyage`: Voyage AI, also at MongoDB's addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from stella_assets.teachers.api.answers import Parsed, billed
from stella_assets.teachers.api.service import Request
from stella_assets.teachers.scorers.dialects.base import RERANK_DIALECTS, RerankService, scores_by_index


@RERANK_DIALECTS.register
class VoyageRerank(RerankService):
    """Voyage AI, and by `base_url` MongoDB Atlas. It bills the query with each document."""

    dialect: Literal["voyage"]
    base_url: str = Field("https://api.voyageai.com/v1", description="of the server, to which `/rerank` is appended")
    truncation: bool = Field(True, description="cut texts that are too long; otherwise they are refused")

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/rerank`."""
        body = {
            "query": role,
            "documents": list(texts),
            "model": self.model,
            "return_documents": False,
            "truncation": self.truncation,
        }
        return Request("/rerank", body)

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows by their `index`."""
        usage = answer.get("usage") or {}
        return Parsed(scores_by_index(answer["data"], count), billed(usage.get("total_tokens")))
