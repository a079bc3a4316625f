"""What may be spent on a service: tokens and money, with what is in flight counted at its upper bound."""

from __future__ import annotations

from stella_assets.core.errors import UserError
from stella_assets.core.progress import money
from stella_assets.teachers.api.errors import BudgetError


class Budget:
    """Counts tokens, and refuses a request that could exceed what is allowed.

    Args:
        max_cost: Dollars; None where there is no limit.
        max_tokens: Tokens; None where there is no limit.
        price: Dollars for a million tokens; None where nobody knows.
        spent: Tokens that were billed before.
        cost: Dollars that were billed before, where that was at other prices.

    Attributes:
        spent: Tokens that were billed.
        in_flight: Upper bound of the tokens that were sent and not answered yet.

    Raises:
        UserError: There is a `max_cost`, but no price.
    """

    def __init__(
        self,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        price: float | None = None,
        spent: int = 0,
        cost: float | None = None,
    ) -> None:
        if max_cost is not None and price is None:
            raise UserError("max_cost: the price of the model is not known.", "State `price`, or use `max_tokens`.")
        self.max_cost, self.max_tokens, self.price = max_cost, max_tokens, price
        self.spent, self.in_flight = spent, 0
        self._paid = 0.0 if cost is None else cost - spent * (price or 0) / 1e6

    @property
    def cost(self) -> float | None:
        """Dollars that were billed; None where the price is not known."""
        return None if self.price is None else self._paid + self.spent * self.price / 1e6

    def admits(self, tokens: int) -> bool:
        """Whether so many more tokens could be sent without exceeding a limit."""
        total = self.spent + self.in_flight + tokens
        if self.max_tokens is not None and total > self.max_tokens:
            return False
        return self.max_cost is None or self._paid + total * (self.price or 0) / 1e6 <= self.max_cost

    def reserve(self, tokens: int) -> None:
        """Count tokens as in flight, before they are sent.

        Args:
            tokens: An upper bound.

        Raises:
            BudgetError: They could exceed a limit.
        """
        if not self.admits(tokens):
            raise self._exceeded(tokens)
        self.in_flight += tokens

    def settle(self, reserved: int, billed: int) -> None:
        """What was in flight is answered, or known to be not billed."""
        self.in_flight -= reserved
        self.spent += billed

    def _exceeded(self, tokens: int) -> BudgetError:
        if self.max_tokens is not None and self.spent + self.in_flight + tokens > self.max_tokens:
            limit, name, spent = f"{self.max_tokens:,} tokens", "max_tokens", f"{self.spent:,} tokens"
        else:
            limit, name, spent = f"${money(self.max_cost or 0)}", "max_cost", f"${money(self.cost or 0)}"
        return BudgetError(
            f"{name}: {spent} of {limit} are spent, and the next request could exceed that with up to "
            f"{tokens:,} tokens.",
            f"What was answered is kept. Raise `{name}` to go on, or take fewer texts.",
        )
