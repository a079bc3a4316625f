"""The dialect `gemini`: Google's Gemini API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from stella_assets.teachers.api.answers import Parsed, billed, place
from stella_assets.teachers.api.dialects.base import DIALECTS, RoleDialect
from stella_assets.teachers.api.service import Problem, Request

DELAY = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)s")
"""Seconds, such as `3.5s`."""


@DIALECTS.register
class GeminiDialect(RoleDialect):
    """Gemini. Its answers do not say how many tokens were billed, so the upper bound is counted."""

    known_types: ClassVar[frozenset[str]] = frozenset(
        {
            "RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING",
            "QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY",
        }
    )  # fmt: skip
    usual_types: ClassVar[Mapping[str, str]] = {"query": "RETRIEVAL_QUERY", "document": "RETRIEVAL_DOCUMENT"}

    dialect: Literal["gemini"]
    base_url: str = Field(
        "https://generativelanguage.googleapis.com/v1beta",
        description="of the server, to which `/models/MODEL:batchEmbedContents` is appended",
    )

    def authorise(self, key: str) -> dict[str, str]:
        """A header of its own; never the `?key=` that also works, as addresses are logged."""
        return {"x-goog-api-key": key}

    def model_name(self) -> str:
        """Without `models/`, which Gemini's own examples write before it."""
        return self.model.removeprefix("models/")

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/models/{model}:batchEmbedContents`."""
        model = self.model_name()
        common: dict[str, Any] = {"model": f"models/{model}"}
        more = {"taskType": self.input_type(role), "outputDimensionality": self.dimensions}
        common |= {part: value for part, value in more.items() if value is not None}
        body = {"requests": [{**common, "content": {"parts": [{"text": text}]}} for text in texts]}
        return Request(f"/models/{model}:batchEmbedContents", body)

    def parse(self, answer: Any, count: int) -> Parsed:
        """Rows in the order of the request, which is how Gemini answers."""
        vectors = place(enumerate(row["values"] for row in answer["embeddings"]), count)
        return Parsed(vectors, billed((answer.get("usageMetadata") or {}).get("promptTokenCount")))

    def problem(self, body: Any) -> Problem:
        """The error with the wait that its details ask for, and whether it counts days."""
        problem = super().problem(body)
        error = body.get("error") if isinstance(body, Mapping) else None
        details = error.get("details") if isinstance(error, Mapping) else None
        for detail in details if isinstance(details, list) else []:
            if isinstance(detail, Mapping) and str(detail.get("@type")).endswith("RetryInfo"):
                asked = DELAY.fullmatch(str(detail.get("retryDelay")))
                problem = replace(problem, wait=float(asked[1]) if asked else None)
        return replace(problem, code="PerDay") if "PerDay" in str(details) else problem

    def is_exhausted(self, problem: Problem) -> bool:
        """Whether what may be sent in a day is used up."""
        return problem.code == "PerDay"
