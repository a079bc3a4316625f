"""The scorer kind `llm_judge`: a language model behind a chat API."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stella_assets.teachers.scorers.base import PAIR_SCORERS
from stella_assets.teachers.scorers.chat import ChatService
from stella_assets.teachers.scorers.paid import PaidScorer


@PAIR_SCORERS.register
class LlmJudge(PaidScorer):
    """A language model that is asked whether the document answers the query: one request for each pair."""

    kind: Literal["llm_judge"]
    service: ChatService = Field(description="how it is asked, for which model, and what")

    @model_validator(mode="after")
    def _require_single_pairs(self) -> Self:
        if self.limits.items not in (None, 1):
            raise ValueError(f"limits.items {self.limits.items}: a judge reads one document at a time; leave it out")
        return self
