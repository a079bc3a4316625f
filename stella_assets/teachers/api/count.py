"""How many tokens texts have for a service: counted where its tokenizer is installed, else an upper bound."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

# `[CLS]`, `[SEP]`, a leading space, and the instruction of up to 13 words that some services put before a text.
EXTRA_TOKENS = 24
"""Tokens of a text that no byte of it stands for, at most."""


def bound_tokens(text: str) -> int:
    """An upper bound for any tokenizer: no token of words, of their parts or of bytes is shorter than a byte.

    Example:
        >>> bound_tokens("two words")
        33
    """
    if text.isascii():
        return len(text) + EXTRA_TOKENS
    # Tokenizers normalise texts, and one character can become eighteen.
    longest = max(len(text.encode()), len(unicodedata.normalize("NFKC", text).encode()))
    return longest + EXTRA_TOKENS


def bound_all(texts: Sequence[str]) -> int:
    """The sum of `bound_tokens`."""
    return sum(map(bound_tokens, texts))
