"""Batches of texts of like length, cut by a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def token_budget_batches(lengths: Sequence[int] | np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Cut texts into batches whose padded size, rows times the longest row, stays within the budget.

    The longest texts come first, so that memory is at its peak in the first batch and not after hours.

    Args:
        lengths: Tokens of each text.
        max_tokens: The budget of one batch; a text that is longer by itself gets a batch of its own.

    Yields:
        Positions of the texts of one batch.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = max(1, max_tokens // longest)
        yield order[start : start + size]
        start += size
