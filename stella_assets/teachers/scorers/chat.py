"""A chat service that is asked whether a document answers a query, in the protocol of OpenAI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import ceil, exp, log
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, JsonValue, field_validator

from stella_assets.teachers.api.answers import Parsed, billed
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.service import Request
from stella_assets.teachers.scorers.dialects.base import ScoreService

SETTLED = {"model", "messages", "logprobs", "top_logprobs", "n", "stream"}
PLACE = re.compile(r"\{(query|document)\}")
GRADE = re.compile(r"10|[0-9]")
TOP = 20
"""Tokens whose probabilities are asked for: what OpenAI and vLLM give at most."""
LEAST = -50.0
"""Of a logarithm: OpenAI writes -9999 where it has no number."""
FORMS = {
    "yes_no": "Answer with one word, yes or no.",
    "grade": "Answer with one whole number from 0 (not at all) to 10 (completely), and with nothing else.",
}
LENGTHS = {"yes_no": 1, "grade": 4}
"""Tokens of an answer."""
CHAT_TOKENS = 64
"""Of a request in addition to its texts: roles, and what a template puts around them."""


class ChatService(ScoreService):
    """OpenAI, and by `base_url` vLLM, Ollama, LM Studio and every server with `/v1/chat/completions`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"dialect", "output_weight"})

    dialect: Literal["openai"] = Field("openai", description="the only one so far")
    base_url: str = Field(
        "https://api.openai.com/v1", description="of the server, to which `/chat/completions` is appended"
    )
    answer: Literal["yes_no", "grade"] = Field(
        "yes_no",
        description="`yes_no`: the score is the logit of yes against no, of servers that give `logprobs`; `grade`: a "
        "number from 0 to 10 that the model writes",
    )
    instruction: str = Field("Does the document answer the query?", description="what the model is asked")
    prompt: str = Field(
        "Query: {query}\n\nDocument: {document}", description="with `{query}` and `{document}` in place of the texts"
    )
    extra: dict[str, JsonValue] = Field(
        default={}, description="more parts of a request, e.g. `seed`; null takes one away, e.g. `temperature`"
    )
    output_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="input tokens that an output token costs; both are counted together, at `price`"
    )

    @field_validator("prompt")
    @classmethod
    def _require_places(cls, prompt: str) -> str:
        if set(PLACE.findall(prompt)) != {"query", "document"}:
            raise ValueError("prompt needs both `{query}` and `{document}`")
        return prompt

    @field_validator("extra")
    @classmethod
    def _refuse_settled_parts(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if settled := sorted(SETTLED & set(extra)):
            raise ValueError(f"extra has {settled[0]!r}, which another setting decides")
        return extra

    def price_list(self) -> str:
        """Of chat models."""
        return "openai_chat"

    def limits(self) -> Limits:
        """One document in a request."""
        return Limits(items=1).over(super().limits())

    def counted(self, text: str, role: str) -> str:
        """All that the model reads."""
        return f"{self.instruction} {FORMS[self.answer]} {self._render(text, role)}"

    def bound(self, tokens: Sequence[int]) -> int:
        """What is sent, and the longest answer."""
        return sum(tokens) + CHAT_TOKENS + ceil(self.output_weight * self._longest())

    def _longest(self) -> int:
        stated = self.extra.get("max_completion_tokens", self.extra.get("max_tokens"))
        return stated if isinstance(stated, int) else LENGTHS[self.answer]

    def _render(self, text: str, role: str) -> str:
        # In one pass: a query may have the word `{document}` in it.
        return PLACE.sub(lambda place: {"query": role, "document": text}[place[1]], self.prompt)

    def request(self, texts: Sequence[str], role: str) -> Request:
        """`POST {base_url}/chat/completions`, at temperature 0."""
        (text,) = texts
        logprobs = {"logprobs": True, "top_logprobs": TOP} if self.answer == "yes_no" else {}
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": f"{self.instruction} {FORMS[self.answer]}"},
                {"role": "user", "content": self._render(text, role)},
            ],
            "temperature": 0,
            "max_tokens": LENGTHS[self.answer],
            **logprobs,
            **self.extra,
        }
        return Request("/chat/completions", {name: value for name, value in body.items() if value is not None})

    def parse(self, answer: Any, count: int) -> Parsed:
        """The logit, or the grade; an answer that is neither is set aside."""
        choice = answer["choices"][0]
        score, reason = _logit(choice) if self.answer == "yes_no" else _grade(choice)
        usage = answer.get("usage") or {}
        prompt, written = billed(usage.get("prompt_tokens")), billed(usage.get("completion_tokens")) or 0
        tokens = None if prompt is None else prompt + ceil(self.output_weight * written)
        unread = {} if reason is None else {0: reason}
        return Parsed(np.array([[score]], dtype=np.float32), tokens, str(answer.get("id") or ""), unread)


def _logit(choice: Mapping[str, Any]) -> tuple[float, str | None]:
    """`log p(yes) - log p(no)` of the first token, and why there is none."""
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return 0.0, "the answer has no logprobs; state `answer: grade` for a server that gives none"
    top = [
        (str(each["token"]).strip().casefold(), max(LEAST, float(each["logprob"])))
        for each in content[0]["top_logprobs"]
    ]
    # One word has several tokens, e.g. with a capital or a blank before it.
    sums = {word: sum(exp(value) for token, value in top if token == word) for word in ("yes", "no")}
    if not any(sums.values()):
        return 0.0, "neither yes nor no is among the most likely answers"
    # A word that is not among the most likely ones is at most as likely as the least of them.
    least = exp(min(value for _, value in top))
    return log(sums["yes"] or least) - log(sums["no"] or least), None


def _grade(choice: Mapping[str, Any]) -> tuple[float, str | None]:
    """The whole number that was written, and why there is none."""
    words = (choice["message"].get("content") or "").strip()
    if not GRADE.fullmatch(words):
        return 0.0, "the answer is not a whole number from 0 to 10"
    return float(words), None
