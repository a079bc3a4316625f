"""What scorers share that others run: nothing is paid twice, and nothing is sent that nobody asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from stella_assets.core.services import Services
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.canonical import digest
from stella_assets.storage.polars import pl
from stella_assets.teachers.api.settings import AskingConfig
from stella_assets.teachers.forecast import Forecast
from stella_assets.teachers.scorers.base import PairScorerConfig, Scored, Scores, Scoring
from stella_assets.teachers.scorers.dialects.base import ScoreService
from stella_assets.teachers.scorers.texts import NO_TEXT, PairTexts, pair_keys
from stella_assets.teachers.terms import Terms

SHOWN = 5
"""Reasons that are counted one by one; services put numbers into some."""


class PaidScorer(PairScorerConfig, AskingConfig):
    """A scorer behind an API. A kind adds its `service`."""

    icons: ClassVar[frozenset[str]] = frozenset({"api"})
    paid: ClassVar[bool] = True

    service: ScoreService = Field(description="how it is asked, and for which model: see the dialects")

    def identity_settings(self) -> dict[str, Any]:
        """What its scores depend on: neither key nor limits, price or terms."""
        return {"kind": self.kind, "name": self.name, "service": self.service.identity()}

    def service_fingerprint(self) -> str:
        """Names the folder of what it answered."""
        return digest({"kind": self.kind, "service": self.service.identity()})[:16]

    def check_access(self, services: Services) -> None:
        """Make sure that its key is there."""
        self.require_key(services, self.owner)

    def stated_terms(self) -> Terms:
        """The provider's."""
        return self.terms

    def score(self, pairs: pl.DataFrame, scoring: Scoring) -> Scored:
        """What the service has answered, whenever it was asked; it is asked for the rest.

        Raises:
            ApiError: The service cannot be used.
            BudgetError: `max_cost` or `max_tokens` could be exceeded; what was answered is kept.
        """
        from stella_assets.teachers.scorers.asked import AskedScores

        texts, keys = PairTexts(pairs, scoring.texts), pair_keys(pairs)
        scores_N: Scores = np.full(len(pairs), np.nan)
        there = np.flatnonzero(texts.there_N)
        asked = AskedScores(self, scoring.compute.services)
        found = asked.score(keys[there], pairs["query"].to_numpy()[there], lambda at: texts.read(there[at]))
        scores_N[there] = found.scores_N
        reasons = Counter(found.reasons)
        left_out = dict(reasons.most_common(SHOWN))
        if others := reasons.total() - sum(left_out.values()):
            left_out["other reasons"] = others
        if missing := len(pairs) - len(there):
            left_out[NO_TEXT] = missing
        return Scored(scores_N, left_out, {"scored_now": found.asked, "cost": asked.cost(keys[there])})

    def forecast(self, pairs: pl.DataFrame, texts: CorpusTexts, services: Services) -> Forecast:
        """What it would cost to score pairs: those that are not in the journal. Nothing is sent."""
        from stella_assets.teachers.scorers.asked import AskedScores

        read = PairTexts(pairs, texts)
        there = np.flatnonzero(read.there_N)
        queries = pairs["query"].to_numpy()[there]
        found = AskedScores(self, services).count_unknown(
            pair_keys(pairs)[there], queries, lambda at: read.read(there[at])
        )
        return self.priced(*found, self.known_price)
