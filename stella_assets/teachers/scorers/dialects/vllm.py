"""The rerank dialect `vllm`: a server of your own, e.g. vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator

from stella_assets.teachers.api.answers import Parsed, billed
from stella_assets.teachers.api.service import Request
from stella_assets.teachers.scorers.dialects.base import RERANK_DIALECTS, RerankService, scores_by_index

SETTLED = {"model", "query", "documents", "top_n"}


@RERANK_DIALECTS.register
class VllmRerank(RerankService):
    """vLLM, and every server with its `/v1/rerank`, e.g. Infinity and LocalAI."""

    dialect: Literal["vllm"]
    base_url: str = Field(description="of the server, to which `/rerank` is appended, e.g. `http://gpu-box:8000/v1`")
    extra: dict[str, JsonValue] = Field(
        default={}, description="more parts of a request, which some servers take, e.g. `truncate_prompt_tokens`"
    )

    @field_validator("extra")
    @classmethod
    def _refuse_settled_parts(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if settled := sorted(SETTLED & set(extra)):
            raise ValueError(f"extra has {settled[0]!r}, which another setting decides")
        return extra

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/rerank`."""
        body = {"model": self.model, "query": role, "documents": list(texts), "top_n": len(texts), **self.extra}
        return Request("/rerank", body)

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows by their `index`."""
        usage = answer.get("usage") or {}
        return Parsed(scores_by_index(answer["results"], count), billed(usage.get("total_tokens")))
