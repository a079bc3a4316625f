"""The dialect `voyage`: Voyage AI, also at MongoDB's addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from stella_assets.teachers.api.answers import Parsed, rows_by_index
from stella_assets.teachers.api.dialects.base import DIALECTS, BatchForm, RoleDialect
from stella_assets.teachers.api.service import Request


@DIALECTS.register
class VoyageDialect(RoleDialect):
    """Voyage AI, and by `base_url` MongoDB Atlas. It puts an instruction of its own before a text, by its role."""

    known_types: ClassVar[frozenset[str]] = frozenset({"query", "document"})
    usual_types: ClassVar[Mapping[str, str]] = {"query": "query", "document": "document"}
    unhashed: ClassVar[frozenset[str]] = frozenset({"encoding_format"})
    batch_form: ClassVar[BatchForm | None] = BatchForm(100_000, 100_000, 1_000_000_000, "12h")

    dialect: Literal["voyage"]
    base_url: str = Field(
        "https://api.voyageai.com/v1", description="of the server, to which `/embeddings` is appended"
    )
    truncation: bool = Field(True, description="cut texts that are too long; otherwise they are refused")
    encoding_format: Literal["base64"] | None = Field(
        "base64", description="how numbers are sent; null for lists, with equal numbers"
    )

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/embeddings`."""
        body: dict[str, Any] = {
            "input": list(texts),
            "model": self.model,
            "input_type": self.input_type(role),
            "truncation": self.truncation,
            "output_dtype": "float",
            "encoding_format": self.encoding_format,
        }
        if self.dimensions is not None:
            body["output_dimension"] = self.dimensions
        return Request("/embeddings", body)

    def batch_line(self, name: str, request: Request) -> dict[str, Any]:
        """The texts alone; their settings are said once for all."""
        return {"custom_id": name, "body": {"input": request.body["input"]}}

    def batch_order(self, file: str, request: Request) -> dict[str, Any]:
        """The order with the settings of all requests."""
        settings = {part: value for part, value in request.body.items() if part not in ("input", "encoding_format")}
        return {**super().batch_order(file, request), "request_params": settings}

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows by their `index`."""
        return rows_by_index(answer, count)
