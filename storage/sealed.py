"""Small JSON with a digest of itself, so that a changed byte is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stella_assets.storage.canonical import digest

SEAL = "seal"


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a digest of it.

    Args:
        content: Plain values.

    Example:
        >>> unseal(seal({"a": 1}))
        {'a': 1}
    """
    return {**content, SEAL: digest(content)}


def unseal(content: Any) -> dict[str, Any]:
    """What was sealed, without the digest. Older versions of some files have none, and count as whole.

    Args:
        content: As it was read.

    Raises:
        ValueError: It is not what was sealed.
    """
    if not isinstance(content, Mapping):
        raise ValueError("it is not a mapping")
    inner = {name: value for name, value in content.items() if name != SEAL}
    if content.get(SEAL) not in (None, digest(inner)):
        raise ValueError("its digest is another one")
    return inner
