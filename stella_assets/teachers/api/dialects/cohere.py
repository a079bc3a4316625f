"""The dialect `cohere`: version 2 of Cohere's protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from stella_assets.teachers.api.answers import Parsed, billed, place
from stella_assets.teachers.api.dialects.base import DIALECTS, RoleDialect
from stella_assets.teachers.api.service import Problem, Request


@DIALECTS.register
class CohereDialect(RoleDialect):
    """Cohere. All accounts may send 2,000 texts a minute, so a million texts take more than eight hours."""

    known_types: ClassVar[frozenset[str]] = frozenset(
        {"search_query", "search_document", "classification", "clustering"}
    )
    usual_types: ClassVar[Mapping[str, str]] = {"query": "search_query", "document": "search_document"}

    dialect: Literal["cohere"]
    base_url: str = Field("https://api.cohere.com", description="of the server, to which `/v2/embed` is appended")
    truncate: Literal["NONE", "START", "END"] = Field(
        "END", description="which end of a text that is too long is cut off; with `NONE` such a text is refused"
    )

    @model_validator(mode="after")
    def _require_types(self) -> CohereDialect:
        if None in self.input_types.values():
            raise ValueError("input_types: Cohere wants one with every request")
        return self

    def input_type(self, role: str) -> str:
        """Cohere's word for a role; that of documents for a role that is a prompt itself."""
        return super().input_type(role) or super().input_type("document") or "search_document"

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/v2/embed`."""
        body: dict[str, Any] = {
            "model": self.model,
            "input_type": self.input_type(role),
            "texts": list(texts),
            "embedding_types": ["float"],
            "truncate": self.truncate,
        }
        if self.dimensions is not None:
            body["output_dimension"] = self.dimensions
        return Request("/v2/embed", body)

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows in the order of the request, which is how Cohere answers."""
        vectors = place(enumerate(answer["embeddings"]["float"]), count)
        units = (answer.get("meta") or {}).get("billed_units") or {}
        return Parsed(vectors, billed(units.get("input_tokens")), str(answer.get("id") or ""))

    def is_exhausted(self, problem: Problem) -> bool:
        """Whether a trial key has used up its month."""
        words = problem.message.lower()
        return "month" in words or "trial key" in words
