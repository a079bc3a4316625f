"""What it would cost to have texts embedded by a teacher that costs money, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stella_assets.core.progress import money
from stella_assets.core.step import Estimate


@dataclass(frozen=True)
class Forecast:
    """Texts that would be sent, and what others would charge for them.

    Attributes:
        texts: That neither the store nor the journal has.
        tokens: Of these; None where nothing tells how long they are.
        counted: How the tokens are known, e.g. `upper bound: a token for each byte`.
        dollars: For these tokens; None where tokens or the price are not known.
        priced: Where the price is from.
        bills: What is counted as tokens.
    """

    texts: int
    tokens: int | None
    counted: str
    dollars: float | None
    priced: str
    bills: str = "tokens"

    def words(self) -> str:
        """In words, e.g. `1,200 tokens (tiktoken, cl100k_base), $0.0240 (price of the recipe)`."""
        if not self.texts:
            return "nothing is sent"
        tokens = f"unknown {self.bills}" if self.tokens is None else f"{self.tokens:,} {self.bills} ({self.counted})"
        dollars = "unknown dollars" if self.dollars is None else f"${money(self.dollars)}"
        return f"{tokens}, {dollars} ({self.priced})"


def with_cost(estimate: Estimate, forecast: Forecast | None) -> Estimate:
    """An estimate with what others would charge.

    Args:
        estimate: Of the work.
        forecast: Of the charges; None where nobody charges anything.
    """
    if forecast is None:
        return estimate
    return replace(estimate, tokens=forecast.tokens, money=forecast.dollars, charges=forecast.words())
