"""The dialect `openai`: OpenAI and every server that speaks its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from stella_assets.teachers.api.answers import Parsed, place
from stella_assets.teachers.api.dialects.base import COMMON_LIMITS, DIALECTS, Dialect, Request
from stella_assets.teachers.api.limits import Limits

OPENAI = "https://api.openai.com/v1"
DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}


@DIALECTS.register
class OpenAiDialect(Dialect):
    """OpenAI, and by `base_url` vLLM, TEI, Ollama, LM Studio, Azure and every compatible server.

    These servers put no prompt before a text, whatever the model's own configuration says: state `prompts`.
    """

    unhashed: ClassVar[frozenset[str]] = frozenset({"encoding_format", "api_version"})

    dialect: Literal["openai"]
    base_url: str = Field(OPENAI, description="of the server, to which `/embeddings` is appended")
    encoding_format: Literal["base64", "float"] = Field(
        "base64", description="how numbers are sent; equal numbers either way, and some servers know `float` only"
    )
    api_version: str | None = Field(
        default=None, description="of Azure's older addresses; the key is sent as `api-key` then", pattern=r"^[\w.-]+$"
    )

    def limits(self) -> Limits:
        """OpenAI's; of another server only what every server has."""
        if self.base_url != OPENAI:
            return COMMON_LIMITS
        return Limits(item_tokens=8_192, request_tokens=300_000).over(COMMON_LIMITS)

    def dim(self) -> int | None:
        """`dimensions`, else what OpenAI's models have."""
        return self.dimensions or (DIMENSIONS.get(self.model) if self.base_url == OPENAI else None)

    def authorise(self, key: str) -> dict[str, str]:
        """A bearer token; `api-key` for Azure's older addresses."""
        return {"api-key": key} if self.api_version else super().authorise(key)

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/embeddings`."""
        del role
        body: dict[str, Any] = {"model": self.model, "input": list(texts), "encoding_format": self.encoding_format}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        version = f"?api-version={self.api_version}" if self.api_version else ""
        return Request(f"/embeddings{version}", body)

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows by their `index`."""
        vectors = place(((row["index"], row["embedding"]) for row in answer["data"]), count)
        # Some compatible servers leave the usage out, or fill it with zeros.
        usage = answer.get("usage") or {}
        return Parsed(vectors, usage.get("prompt_tokens") or usage.get("total_tokens") or None)
