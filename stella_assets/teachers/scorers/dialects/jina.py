"""The rerank dialect `jina`: Jina AI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from stella_assets.teachers.api.answers import Parsed, billed
from stella_assets.teachers.api.service import Request
from stella_assets.teachers.scorers.dialects.base import RERANK_DIALECTS, RerankService, scores_by_index


@RERANK_DIALECTS.register
class JinaRerank(RerankService):
    """Jina AI."""

    dialect: Literal["jina"]
    base_url: str = Field("https://api.jina.ai/v1", description="of the server, to which `/rerank` is appended")

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/rerank`; `top_n` is all, as some servers default to fewer."""
        body = {
            "model": self.model,
            "query": role,
            "documents": list(texts),
            "top_n": len(texts),
            "return_documents": False,
        }
        return Request("/rerank", body)

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows by their `index`."""
        usage = answer.get("usage") or {}
        return Parsed(scores_by_index(answer["results"], count), billed(usage.get("total_tokens")))
