"""The dialect `mistral`: Mistral AI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from stella_assets.teachers.api.answers import Parsed, rows_by_index
from stella_assets.teachers.api.dialects.base import DIALECTS, Dialect
from stella_assets.teachers.api.service import Request


@DIALECTS.register
class MistralDialect(Dialect):
    """Mistral AI. `dimensions` is for models that can shorten their vectors, e.g. `codestral-embed`."""

    dialect: Literal["mistral"]
    base_url: str = Field("https://api.mistral.ai/v1", description="of the server, to which `/embeddings` is appended")

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/embeddings`."""
        del role
        body: dict[str, Any] = {
            "model": self.model,
            "input": list(texts),
            "output_dtype": "float",
            "encoding_format": "float",
        }
        if self.dimensions is not None:
            body["output_dimension"] = self.dimensions
        return Request("/embeddings", body)

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows by their `index`."""
        return rows_by_index(answer, count)
