"""The dialect `jina`: Jina AI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from stella_assets.teachers.api.answers import Parsed, rows_by_index
from stella_assets.teachers.api.dialects.base import DIALECTS, RoleDialect
from stella_assets.teachers.api.service import Request


@DIALECTS.register
class JinaDialect(RoleDialect):
    """Jina AI. A role chooses one of the adapters of the model."""

    known_types: ClassVar[frozenset[str]] = frozenset(
        {"retrieval.query", "retrieval.passage", "text-matching", "classification", "separation"}
    )
    usual_types: ClassVar[Mapping[str, str]] = {"query": "retrieval.query", "document": "retrieval.passage"}
    unhashed: ClassVar[frozenset[str]] = frozenset({"embedding_type"})

    dialect: Literal["jina"]
    base_url: str = Field("https://api.jina.ai/v1", description="of the server, to which `/embeddings` is appended")
    truncate: bool = Field(False, description="cut texts that are too long; otherwise they are refused")
    embedding_type: Literal["base64", "float"] = Field(
        "base64", description="how numbers are sent; equal numbers either way"
    )

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/embeddings`."""
        body: dict[str, Any] = {
            "model": self.model,
            "input": list(texts),
            "embedding_type": self.embedding_type,
            "late_chunking": False,
            "truncate": self.truncate,
            "normalized": True,
        }
        more = {"task": self.input_type(role), "dimensions": self.dimensions}
        return Request("/embeddings", body | {part: value for part, value in more.items() if value is not None})

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows by their `index`."""
        return rows_by_index(answer, count)
