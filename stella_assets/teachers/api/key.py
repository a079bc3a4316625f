"""A key that shows itself only to the request that needs it."""

from __future__ import annotations

import re

from stella_assets.core.errors import UserError

# Services print the beginning of a refused key; shorter ones are common words.
TELLING = 6
"""Characters of a key that begin a word which is taken for it."""


class Key:
    """A key of a service. Its `repr`, its form as text and its pickle do not have it.

    Args:
        value: From the environment.

    Raises:
        UserError: It cannot be sent in a header.

    Example:
        >>> Key("sk-1234567890")
        Key('***')
    """

    def __init__(self, value: str) -> None:
        # A line break at the end comes from `cat file`; httpx2 would print the whole key in its error.
        if not value or not value.isascii() or not value.isprintable() or value != value.strip():
            raise UserError(
                "the key of the service is empty, or has spaces, line breaks or letters that no header can have.",
                "Set the environment variable that `key` names to the key alone.",
            )
        self.__value = value

    def reveal(self) -> str:
        """The key itself, for a header."""
        return self.__value

    def hide(self, words: str) -> str:
        """Words without the key, and without a word that begins like it."""
        words = words.replace(self.__value, "***")
        if len(self.__value) <= 2 * TELLING:
            return words
        return re.sub(rf"{re.escape(self.__value[:TELLING])}\S*", "***", words)

    def __repr__(self) -> str:
        return "Key('***')"

    def __reduce__(self) -> str:
        raise TypeError("a key is not pickled")
