"""Keys of services that somebody wrote where none belongs: found, so that they are refused, and hidden in messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from pydantic import JsonValue

HIDDEN = "***"
NAMES = frozenset({"accesstoken", "apikey", "authorization", "key", "password", "secret", "token", "xapikey"})
"""Of values that are secrets, in small letters and without `-` and `_`."""
KEY = re.compile(r"(?<![\w-])(?:sk-|pa-|hf_|gsk_|xai-|nvapi-|jina_|AIza)(?=[\w-]*[0-9])[\w-]{20,}", re.ASCII)
"""Begins as keys of services do; with a digit, as `sk` and `pa` are languages, too."""
USER = re.compile(r"(?<=://)[^/'\"\s]*@")
VALUE = re.compile(r"(?<=[?&])([\w.-]+)=[^&'\"\s]+")
"""Of a query in an address."""
BEARER = re.compile(r"(?i)\b(bearer|basic) +[^\s'\"]{8,}")
WORD = re.compile(r"[\w-]{20,}", re.ASCII)
"""Keys are as long at least."""
HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""A commit, or a SHA-256: no secret, and worth showing."""


def hide_secrets(words: str) -> str:
    """Words without what may be a secret: users and queries of addresses, and words that look like keys.

    Args:
        words: What a person is to read, e.g. of a recipe's value.

    Example:
        >>> hide_secrets("https://me:secret@example.org/v1?key=secret is not an address")
        'https://***@example.org/v1?key=*** is not an address'
    """
    for secret, shown in ((USER, f"{HIDDEN}@"), (VALUE, rf"\1={HIDDEN}"), (BEARER, rf"\1 {HIDDEN}"), (KEY, HIDDEN)):
        words = secret.sub(shown, words)
    return WORD.sub(lambda word: HIDDEN if _is_random(word[0]) else word[0], words)


def holds_key(value: JsonValue) -> bool:
    """Whether a value of a recipe is or has a key of a service, by how it begins or by its name.

    Args:
        value: Plain values, nested.
    """
    if isinstance(value, Mapping):
        named = any(re.sub("[-_]", "", name).lower() in NAMES for name in value)
        return named or any(map(holds_key, value.values()))
    if isinstance(value, list):
        return any(map(holds_key, value))
    return isinstance(value, str) and bool(KEY.search(value) or BEARER.search(value))


def _is_random(word: str) -> bool:
    """Whether small letters, capitals and digits follow one another as in no name: `Xv3kQ9bW1z`, `8ab2934fa446`."""
    kinds = [(letter.isdigit(), letter.isupper()) if letter.isalnum() else None for letter in word]
    changes = sum(None not in (a, b) and a != b for a, b in pairwise(kinds))
    return changes >= len(word) / 4 and not HASH.fullmatch(word)
