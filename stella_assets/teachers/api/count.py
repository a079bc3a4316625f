"""How many tokens texts have for a service: counted where its tokenizer is installed, else an upper bound."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# `[CLS]`, `[SEP]`, a leading space, and the instruction of up to 13 words that some services put before a text.
EXTRA_TOKENS = 24
"""Tokens of a text that no byte of it stands for, at most."""
THREADS = 2
"""Of tiktoken."""


@dataclass(frozen=True)
class Counter:
    """A way to count tokens.

    Attributes:
        words: What it is, for people.
        exact: Whether it counts what the service counts; else it gives an upper bound.
        count: The tokens of each text.
    """

    words: str
    exact: bool
    count: Callable[[Sequence[str]], list[int]]


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


BOUND = Counter("upper bound: a token for each byte", False, lambda texts: [bound_tokens(text) for text in texts])


def openai_counter(model: str) -> Counter:
    """OpenAI's own tokenizer, where `tiktoken` is installed and has the vocabulary or can fetch it.

    Args:
        model: OpenAI's name of the model.

    Returns:
        The upper bound where it is not there; its `words` say so.
    """
    try:
        import tiktoken
    except ImportError:
        return Counter(f"{BOUND.words}, as tiktoken is not installed", False, BOUND.count)
    try:
        encoding = tiktoken.encoding_for_model(model)
    except KeyError:
        return Counter(f"{BOUND.words}, as tiktoken does not know {model}", False, BOUND.count)
    except OSError:  # it fetches the vocabulary when it is first used
        return Counter(f"{BOUND.words}, as tiktoken could not fetch its vocabulary", False, BOUND.count)
    return Counter(
        f"tiktoken, {encoding.name}",
        True,
        lambda texts: [len(tokens) for tokens in encoding.encode_ordinary_batch(list(texts), num_threads=THREADS)],
    )
