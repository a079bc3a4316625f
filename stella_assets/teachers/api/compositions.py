"""Whether a service gives a text the same vector in any request. Servers exist that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stella_assets.teachers.api.canaries import CANARIES

if TYPE_CHECKING:
    from stella_assets.teachers.api.model import ApiModel

LONG = " ".join(CANARIES[-8:])
"""Next to it, a short text gets much padding."""
ROLE = "document"
TEXTS = 4 * len(CANARIES) + 2 * len(CANARIES)  # each of the first four times once, then in pairs
"""Texts that an audit sends."""


@dataclass(frozen=True)
class Composition:
    """The fixed texts in other requests, compared with the first time.

    Attributes:
        name: How they were sent.
        cosine: The smallest one of a text's two vectors.
        difference: The largest one of a number in them.
    """

    name: str
    cosine: float
    difference: float


def compare_compositions(model: ApiModel) -> list[Composition]:
    """Send the 64 fixed texts five times: together, again, in reverse, one by one, and each next to a long text.

    Args:
        model: An opened teacher of kind `api`. What is answered is noted in its accounts, and is not stored.

    Returns:
        How far the vectors of each time differ from those of the first.

    Raises:
        UserError: The service cannot be used, or the budget does not allow it.
    """
    texts = list(CANARIES)
    first = model.encode_again(texts, ROLE)
    paired = [text for canary in texts for text in (canary, LONG)]
    seen = {
        "the same request again": model.encode_again(texts, ROLE),
        "in reverse order": model.encode_again(texts[::-1], ROLE)[::-1],
        "one text in a request": model.encode_again(texts, ROLE, items=1),
        "each next to a long text": model.encode_again(paired, ROLE, items=2)[::2],
    }
    return [_compare(name, first, now) for name, now in seen.items()]


def _compare(name: str, first: np.ndarray, now: np.ndarray) -> Composition:
    before, after = first.astype(np.float64), now.astype(np.float64)
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = float(((before * after).sum(axis=1) / norms).min())
    return Composition(name, min(1.0, cosine), float(np.abs(before - after).max()))
