"""What can go wrong with an embedding service. No message shows a key."""

from __future__ import annotations

from stella_assets.core.errors import UserError


class ApiError(UserError):
    """A service refuses what was asked, and asking again would not help; or it does not answer at all."""


class BudgetError(UserError):
    """The next request could cost more than the recipe allows."""


class AnswerError(Exception):
    """An answer with status 200 that cannot be used: not JSON, or not one finite vector for each text.

    Args:
        reason: What is wrong with it.
        passing: Whether it may be due to a moment, e.g. a connection that was cut, so that asking again can help.
    """

    def __init__(self, reason: str, passing: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
