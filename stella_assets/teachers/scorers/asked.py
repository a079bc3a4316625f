"""Scores that a service gave: looked up in its journal, and asked for where they are not there.

Shapes: N pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stella_assets.core.progress import progress_bar, say_in_log
from stella_assets.core.services import Services
from stella_assets.storage.journal import Journal
from stella_assets.storage.keys import Keys, Positions, to_ids
from stella_assets.storage.locks import file_lock
from stella_assets.teachers.api.accounts import SCORES, Accounts
from stella_assets.teachers.api.answers import Answer, Refusal
from stella_assets.teachers.api.client import ApiClient
from stella_assets.teachers.api.ledger import Ledger, cost_of
from stella_assets.teachers.api.refused import RefusedTexts
from stella_assets.teachers.scorers.base import Scores

if TYPE_CHECKING:
    from stella_assets.teachers.scorers.paid import PaidScorer

UNIT_PAIRS = 4096
"""Pairs whose texts are in memory, about; a unit ends where a query does, as a request has one query."""
COUNTED = 16_384
"""Pairs whose tokens are counted at most before a run; more would take minutes."""
ReadTexts = Callable[[Positions], tuple[list[str], list[str]]]
"""Queries and documents of pairs at positions."""


@dataclass(frozen=True)
class Found:
    """The scores of pairs.

    Attributes:
        scores_N: NaN for a pair without one.
        reasons: Why, of each such pair.
        asked: Pairs that the service answered now.
    """

    scores_N: Scores
    reasons: list[str]
    asked: int


class AskedScores:
    """The scores of one service.

    Args:
        config: The scorer's settings.
        services: Where answers are kept, and where the key is.
    """

    def __init__(self, config: PaidScorer, services: Services) -> None:
        self._config, self._services = config, services
        self._workspace = services.require_workspace(config.owner)
        self._service = config.service_fingerprint()
        folder = self._workspace.api / self._service / "journal" / self._service
        # Two numbers for each score: a journal keeps float16, which tells apart only some 2,000 scores below 1.
        self._journal = Journal(folder, 2)
        self._refused = RefusedTexts(folder)
        self._accounts = Accounts(config, services.recipe, Ledger(self._workspace, self._service))
        self._client: ApiClient | None = None
        self._named: set[str] = set()

    def score(self, keys: Keys, queries: np.ndarray, read: ReadTexts) -> Found:
        """The scores of pairs.

        Args:
            keys: Of the pairs.
            queries: What tells apart the queries, by which the pairs are ordered.
            read: Gives the texts of pairs.

        Raises:
            ApiError: The service cannot be used.
            BudgetError: It could cost more than allowed; what was answered is kept.
        """
        before = len(self._journal)
        with progress_bar(len(keys), self._config.name, "pairs") as bar:
            for unit in _units(queries):
                self._fill(keys, queries, unit, read)
                bar.update(len(unit))
        scores_N, missing = self._look_up(keys, np.arange(len(keys)))
        told = self._refused.reasons()
        reasons = [told[key] for key in to_ids(keys[missing]).to_pylist()]
        return Found(scores_N, reasons, len(self._journal) - before)

    def count_unknown(self, keys: Keys, queries: np.ndarray, read: ReadTexts) -> tuple[int, int, str]:
        """Pairs that would be sent, what would be billed, and how that is known. Nothing is sent."""
        service = self._config.service
        unknown, counter = self._unknown(keys, np.arange(len(keys))), service.counter()
        sample = unknown[:COUNTED]
        if not sample.size:
            return 0, 0, counter.words
        texts = zip(*read(sample), strict=True)
        tokens = np.array(counter.count([service.counted(document, query) for query, document in texts]))
        # One request for each query, as it would be sent.
        requests = np.split(tokens, np.flatnonzero(queries[sample][1:] != queries[sample][:-1]) + 1)
        billed = sum(service.bound(request.tolist()) for request in requests) * len(unknown) / len(sample)
        words = counter.words + (f"; from {COUNTED:,} pairs" if len(sample) < len(unknown) else "")
        return len(unknown), round(billed), words

    def cost(self, keys: Keys) -> dict[str, Any]:
        """What the scores of pairs have cost, whenever they were paid."""
        return cost_of(iter([(self._journal, keys)]))

    def _fill(self, keys: Keys, queries: np.ndarray, unit: Positions, read: ReadTexts) -> None:
        if not self._missing(keys, unit).size:
            return
        # One at a time: processes that ask the same service share its limits and what may be spent.
        with file_lock(self._workspace, f"api.{self._service}", self._say_waiting):
            missing = self._missing(keys, unit)
            if missing.size:
                self._ask(keys, missing, read)

    def _unknown(self, keys: Keys, at: Positions) -> Positions:
        """Those that were neither answered nor refused, as far as that is known without reading scores."""
        return self._without_refused(keys, at[~self._journal.has(keys[at])])

    def _missing(self, keys: Keys, at: Positions) -> Positions:
        """Those that have no score and were not refused: a damaged record is asked for again."""
        return self._without_refused(keys, self._look_up(keys, at)[1])

    def _without_refused(self, keys: Keys, at: Positions) -> Positions:
        refused = self._refused.keys() if at.size else keys[:0]
        return at[~np.isin(keys[at], refused)] if refused.size else at

    def _look_up(self, keys: Keys, at: Positions) -> tuple[Scores, Positions]:
        """The scores of pairs, NaN where there is none, and which have none."""
        found, numbers = self._journal.find(keys[at])
        for damage in set(self._journal.damages) - self._named:
            self._named.add(damage)
            say_in_log(f"{self._config.name}: journal {damage}", warning=True)
        scores_N: Scores = np.full(len(at), np.nan)
        scores_N[found] = numbers.astype(np.float64).sum(axis=1)
        return scores_N, np.delete(at, found)

    def _ask(self, keys: Keys, missing: Positions, read: ReadTexts) -> None:
        queries, documents = read(missing)
        budget = self._accounts.budget()

        def on_answer(answer: Answer) -> None:
            about = self._accounts.about(answer.tokens, answer.request_id, SCORES)
            self._journal.append(keys[missing[answer.positions]], split_scores(answer.vectors[:, 0]), about)

        try:
            refusals = self._open().embed(documents, queries, on_answer, budget)
        finally:
            self._accounts.write()
        self._set_aside(keys[missing], refusals)

    def _open(self) -> ApiClient:
        if self._client is None:
            key = self._config.require_key(self._services, self._config.owner)
            self._client = ApiClient(self._config.service, key, self._config.limits, say=say_in_log)
        return self._client

    def _set_aside(self, keys: Keys, refusals: list[Refusal]) -> None:
        if not refusals:
            return
        ids = to_ids(keys[[refusal.position for refusal in refusals]]).to_pylist()
        self._refused.add({key: refusal.reason for key, refusal in zip(ids, refusals, strict=True)})
        say_in_log(
            f"{self._config.name}: pairs that get no score are left out: {len(refusals):,}. The first: "
            f"{refusals[0].reason}",
            warning=True,
        )

    def _say_waiting(self) -> None:
        say_in_log(f"{self._config.name}: another process is asking this service; waiting for its unit.")


def split_scores(scores_N: np.ndarray) -> np.ndarray:
    """Scores as two float16 each `[N, 2]`, whose sum is the score to some 22 bits."""
    high_N = scores_N.astype(np.float16)
    return np.stack([high_N, (scores_N - high_N.astype(scores_N.dtype)).astype(np.float16)], axis=1)


def _units(queries: np.ndarray) -> Iterator[Positions]:
    """Positions of about `UNIT_PAIRS` pairs, whole queries."""
    starts = np.concatenate([[0], np.flatnonzero(queries[1:] != queries[:-1]) + 1, [len(queries)]])
    cuts = [0]
    for start in starts[1:]:
        if start - cuts[-1] >= UNIT_PAIRS or start == len(queries):
            cuts.append(int(start))
    yield from (np.arange(first, last) for first, last in pairwise(cuts) if last > first)
