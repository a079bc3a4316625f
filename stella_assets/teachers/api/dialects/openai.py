"""The dialect `openai`: OpenAI and every server that speaks its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue, field_validator

from stella_assets.teachers.api.answers import Parsed, rows_by_index
from stella_assets.teachers.api.count import BOUND, Counter, openai_counter
from stella_assets.teachers.api.dialects.base import DIALECTS, BatchForm, RoleDialect
from stella_assets.teachers.api.service import Request

OPENAI = "https://api.openai.com/v1"
SETTLED = {"model", "input", "dimensions", "encoding_format", "input_type"}


@DIALECTS.register
class OpenAiDialect(RoleDialect):
    """OpenAI, and by `base_url` vLLM, TEI, Ollama, LM Studio, Azure and every compatible server.

    These servers put no prompt before a text, whatever the model's own configuration says: state `prompts`. Where a
    server does it by an `input_type`, state `input_types`; OpenAI itself has none.
    """

    unhashed: ClassVar[frozenset[str]] = frozenset({"encoding_format", "api_version"})
    batch_form: ClassVar[BatchForm | None] = BatchForm(50_000, 50_000, 200_000_000, "24h")

    dialect: Literal["openai"]
    base_url: str = Field(OPENAI, description="of the server, to which `/embeddings` is appended")
    encoding_format: Literal["base64", "float"] = Field(
        "base64", description="how numbers are sent; equal numbers either way, and some servers know `float` only"
    )
    extra: dict[str, JsonValue] = Field(
        default={}, description="more parts of a request, which some servers take, e.g. `truncate_prompt_tokens`"
    )
    api_version: str | None = Field(
        default=None, description="of Azure's older addresses; the key is sent as `api-key` then", pattern=r"^[\w.-]+$"
    )

    @field_validator("extra")
    @classmethod
    def _refuse_settled_parts(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if settled := sorted(SETTLED & set(extra)):
            raise ValueError(f"extra has {settled[0]!r}, which another setting decides")
        return extra

    def counter(self) -> Counter:
        """OpenAI's own tokenizer where it is installed; an upper bound for other servers."""
        return openai_counter(self.model) if self.base_url == OPENAI else BOUND

    def authorise(self, key: str) -> dict[str, str]:
        """A bearer token; `api-key` for Azure's older addresses."""
        return {"api-key": key} if self.api_version else super().authorise(key)

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/embeddings`."""
        body: dict[str, Any] = {"model": self.model, "input": list(texts), "encoding_format": self.encoding_format}
        more = {"dimensions": self.dimensions, "input_type": self.input_type(role), **self.extra}
        body |= {part: value for part, value in more.items() if value is not None}
        version = f"?api-version={self.api_version}" if self.api_version else ""
        return Request(f"/embeddings{version}", body)

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows by their `index`."""
        return rows_by_index(answer, count)
