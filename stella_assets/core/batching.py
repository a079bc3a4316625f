"""Batches of texts of similar length, cut by a budget of tokens and padded no further than necessary.

Shapes: N texts, B texts of a batch, W tokens of a padded row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH_MULTIPLE = 8
"""Tokens. Tensor cores work in tiles of 8 half-precision values."""


def token_budget_batches(lengths: Sequence[int] | np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Cut texts into batches whose padded size, rows times the longest row, stays within the budget.

    The longest texts come first, so that memory is at its peak in the first batch and not after hours.

    Args:
        lengths: Tokens of each text.
        max_tokens: The budget of one batch; a text that is longer than it gets a batch of its own.

    Yields:
        Positions of the texts of one batch, `[B]`, longest first.

    Example:
        >>> [batch.tolist() for batch in token_budget_batches([3, 9, 4], max_tokens=10)]
        [[1], [2, 0]]
    """
    # Stable, so that batches, and with them the last bits of the vectors, are the same on every machine.
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = max(1, max_tokens // longest)
        yield order[start : start + size]
        start += size


def padded_widths(lengths_N: np.ndarray, limit: int) -> np.ndarray:
    """Lengths rounded up to a multiple of 8, `[N]`: few shapes, as kernels are compiled once per shape.

    Padding goes no further than `limit`, the positions that a model has.

    Args:
        lengths_N: Tokens of each text, `[N]`.
        limit: Tokens.

    Returns:
        Tokens of each padded row, `[N]`, never fewer than its text has.

    Example:
        >>> padded_widths(np.array([3, 9, 15]), limit=12)
        array([ 8, 12, 15])
    """
    # Floor division of the negative rounds up, in integers.
    rounded_N = -(-lengths_N // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
    padded_N: np.ndarray = np.maximum(np.minimum(rounded_N, limit), lengths_N)
    return padded_N


def padding_of(tokenizer: Any) -> dict[str, int]:
    """What each column of tokens is padded with."""
    # Some decoders have no padding token; any valid id will do, as the mask hides it.
    return {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}


@dataclass(frozen=True)
class TokenisedTexts:
    """Tokenised texts, unpadded.

    A text without tokens, e.g. an empty one where the tokenizer adds no special tokens, gets one token of padding that
    the model attends to: no model has a state of nothing, and one such text does not stop a run.

    Attributes:
        columns: By name (`input_ids`, `token_type_ids`, ...) one row `[tokens]` int32 per text.
        padding: What a column is padded with; 0 where a column is not named.
        shared: What the model gets in addition to the columns; the same for all texts.
        left: Whether padding goes before the tokens, as in most decoders.
    """

    columns: Mapping[str, Sequence[np.ndarray]]
    padding: Mapping[str, int]
    shared: Mapping[str, Any]
    left: bool

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, `[N]` int64."""
        return np.array([max(1, len(row)) for row in self.columns["input_ids"]], dtype=np.int64)

    def batch(self, places: np.ndarray, width: int) -> dict[str, Any]:
        """The features of some texts.

        Args:
            places: Their positions, `[B]`.
            width: Tokens of a padded row, W; at least the longest of the texts.

        Returns:
            The columns and their `attention_mask`, tensors `[B, W]` int64 on the CPU, and what the texts share.
        """
        import torch

        used_B = np.array([len(self.columns["input_ids"][i]) for i in places])
        steps_W = np.arange(width)
        text_BW = steps_W >= width - used_B[:, None] if self.left else steps_W < used_B[:, None]
        mask_BW = text_BW.copy()
        mask_BW[used_B == 0, -1 if self.left else 0] = True
        features = {"attention_mask": torch.from_numpy(mask_BW.astype(np.int64))}
        for name, rows in self.columns.items():
            padded_BW = np.full(text_BW.shape, self.padding.get(name, 0), dtype=np.int64)
            # A boolean mask is filled row by row, in the order of the concatenated texts.
            padded_BW[text_BW] = np.concatenate([rows[i] for i in places])
            features[name] = torch.from_numpy(padded_BW)
        return {**self.shared, **features}
