"""Errors that people can correct. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

from stella_assets.storage.errors import StorageError


class StellaError(Exception):
    """Base of every error that this package raises on purpose."""


class UserError(StellaError):
    """Something that a person asked for is not possible, with the remedy.

    Args:
        message: What is wrong: the file, the key, the value.
        remedy: What to do about it, as a sentence.

    Example:
        >>> raise UserError("source 'tickets': tickets.csv has no column 'body'.", "Correct `columns`.")
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str]]:
        return type(self), (self.message, self.remedy)  # errors of worker processes are pickled


class MissingResultError(UserError):
    """A result that was asked for was not made yet, or is gone: nothing has to be corrected, but something run."""


EXPECTED = (StellaError, StorageError)
"""What the command line reports in one line, without a traceback. `ValueError` is not among them: it may be a bug."""
