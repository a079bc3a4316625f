"""What may be spent on a service, and what is noted of each request that was paid."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.ledger import Ledger
from stella_assets.teachers.api.service import Service

VECTORS, CANARY, AUDIT, IMPORTED, SCORES = "vectors", "canaries", "audits", "imported", "scores"
"""What was paid for; what was imported was paid elsewhere."""


class Customer(Protocol):
    """Settings of who asks a service: a teacher, or a scorer of pairs."""

    @property
    def name(self) -> str:
        """In the recipe."""

    @property
    def service(self) -> Service:
        """Who is asked."""

    @property
    def max_cost(self) -> float | None:
        """Dollars that the workspace may pay for it in all."""

    @property
    def max_tokens(self) -> int | None:
        """Tokens that may be billed for it in all."""

    @property
    def known_price(self) -> float | None:
        """Dollars for a million tokens; None where nobody knows."""


class Accounts:
    """The accounts of one teacher or scorer.

    Args:
        config: Its settings.
        recipe: That asks.
        ledger: What the service was paid in the workspace.
    """

    def __init__(self, config: Customer, recipe: str, ledger: Ledger) -> None:
        self._config, self._recipe, self._ledger = config, recipe, ledger

    def budget(self, price: float | None = None) -> Budget:
        """What is left of `max_cost` and `max_tokens`.

        Args:
            price: Dollars for a million tokens; that of single requests where not given.
        """
        config = self._config
        self._ledger.refresh()
        known = config.known_price if price is None else price
        return Budget(config.max_cost, config.max_tokens, known, self._ledger.tokens, self._ledger.dollars)

    def about(self, tokens: int, request: str, purpose: str, price: float | None = None) -> Mapping[str, Any]:
        """What a record of the journal says of a request.

        Args:
            tokens: As billed.
            request: The service's name of it.
            purpose: What it was for.
            price: Dollars for a million tokens; that of single requests where not given.
        """
        price = self._config.known_price if price is None else price
        return {
            "recipe": self._recipe,
            "teacher": self._config.name,
            "model": self._config.service.model,
            "purpose": purpose,
            "request": request,
            "tokens": tokens,
            "dollars": None if price is None else tokens * price / 1e6,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }

    def write(self) -> None:
        """Write down what was paid so far."""
        self._ledger.write()
