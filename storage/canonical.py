"""JSON that has the same bytes for the same value, and its digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from stella_assets.storage.files import DIGEST_CHARS


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: the same value gives the same bytes.

    Raises:
        ValueError: The value holds NaN or infinity, which JSON does not have.
        TypeError: The value is not made of plain JSON types.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, the first 32 hexadecimal digits.

    Example:
        >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
        True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:DIGEST_CHARS]
