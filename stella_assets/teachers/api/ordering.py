"""The texts of a corpus that a teacher has not seen, ordered from the provider's batch API and kept in the journal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stella_assets.core.progress import say_in_log
from stella_assets.storage.journal import Journal
from stella_assets.storage.keys import Positions, to_keys
from stella_assets.teachers.api.accounts import VECTORS, Accounts
from stella_assets.teachers.api.batches import BatchService
from stella_assets.teachers.api.delivery import Delivered, Delivery
from stella_assets.teachers.api.errors import BudgetError
from stella_assets.teachers.api.orders import Orders

if TYPE_CHECKING:
    from stella_assets.teachers.kinds.api import ApiTeacher
    from stella_assets.teachers.kinds.base import Wanted

SMALLEST_ORDER = 1_000
"""Texts that are worth a batch; nobody waits for hours for fewer."""
LOOKED_UP = 16_384
"""Texts that are looked up in the journal at once, as it gives their vectors."""


class Ordering:
    """Orders from one service.

    Args:
        config: The teacher's settings.
        key: None for a server without keys.
        folder: Of what the service answered.
        accounts: Of what is paid.
    """

    def __init__(self, config: ApiTeacher, key: str | None, folder: Path, accounts: Accounts) -> None:
        self._config, self._key, self._folder, self._accounts = config, key, folder, accounts
        self._journals: dict[str, Journal] = {}

    def fetch(
        self,
        wanted: Iterable[Wanted],
        fingerprint: Callable[[str], str],
        refused: Callable[[str], Collection[str]],
        before: Callable[[], None],
    ) -> None:
        """Have texts answered that are neither in the journal nor in an order of an earlier run.

        Args:
            wanted: The texts, by role.
            fingerprint: Of the vectors of a role.
            refused: Ids of texts of a role that the service does not take.
            before: Is called before anything new is paid.

        Raises:
            ApiError: A batch failed, or the service cannot be used.
            BudgetError: A batch could exceed `max_cost` or `max_tokens`; those before it were fetched.
        """
        config = self._config
        budget = self._accounts.budget(config.known_batch_price)
        with BatchService(config.service, self._key) as api:
            orders = Orders(self._folder)
            delivery = Delivery(config.service, api, orders, config.limits, config.dimensions, self._keep, say_in_log)
            try:
                delivery.resume(budget)
                lacking = [(texts, self._missing(texts, fingerprint, refused)) for texts in wanted]
                if sum(len(at) for _, at in lacking) < SMALLEST_ORDER:
                    return
                before()
                for texts, at in lacking:
                    read = partial(_read, config.prompt(texts.role), texts, at)
                    delivery.hand_in(fingerprint(texts.role), texts.keys[at], read, texts.role, budget)
                delivery.wait(budget)
            except BudgetError:
                delivery.wait(budget)
                raise
            finally:
                self._accounts.write()

    def _journal(self, fingerprint: str) -> Journal:
        if fingerprint not in self._journals:
            self._journals[fingerprint] = Journal(self._folder / "journal" / fingerprint, self._config.dimensions)
        return self._journals[fingerprint]

    def _missing(
        self, texts: Wanted, fingerprint: Callable[[str], str], refused: Callable[[str], Collection[str]]
    ) -> Positions:
        journal, keys = self._journal(fingerprint(texts.role)), texts.keys
        known = [np.flatnonzero(np.isin(keys, to_keys(sorted(refused(texts.role)))))]
        for start in range(0, len(keys), LOOKED_UP):
            known.append(start + journal.find(keys[start : start + LOOKED_UP])[0])
        return np.setdiff1d(np.arange(len(keys)), np.concatenate(known))

    def _keep(self, delivered: Delivered) -> None:
        journal = self._journal(delivered.fingerprint)
        # A run that was killed while it fetched a file reads it again.
        if len(journal.find(delivered.keys)[0]) < len(delivered.keys):
            price = self._config.known_batch_price
            about = self._accounts.about(delivered.tokens, delivered.request, VECTORS, price)
            journal.append(delivered.keys, delivered.vectors, about)


def _read(prompt: str, texts: Wanted, of: Positions, at: Positions) -> list[str]:
    return [prompt + text for text in texts.read(of[at])]
