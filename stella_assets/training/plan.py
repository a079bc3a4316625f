"""Which texts form the batch of a step, and in which groups they go through the encoder.

Shapes: N texts of a split, B texts of a batch.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from stella_assets.core.errors import UserError

GROUP_COST = {"cpu": 256, "mps": 1024, "cuda": 4096}
"""What one more pass through the encoder costs in addition to its tokens, in tokens, e.g. for launching kernels."""


class BatchSizeError(UserError):
    """A batch that is larger than the training data."""


class BatchPlan:
    """Batches that are random samples, without replacement within an epoch; they depend on seed and step alone.

    Lengths do not decide which texts come together; `length_groups` keeps the padding low nevertheless.
    """

    def __init__(
        self, lengths_N: np.ndarray, seed: int, *, batch_size: int | None = None, batch_tokens: int | None = None
    ) -> None:
        """Batches of `batch_size` texts, or of as many texts as fit into `batch_tokens` tokens.

        Args:
            lengths_N: Tokens of each text.
            seed: Of the order of the texts.
            batch_size: Texts of a batch.
            batch_tokens: Tokens of a batch, padding not counted; in place of `batch_size`.

        Raises:
            BatchSizeError: There are fewer texts than one batch takes.
        """
        self._lengths_N, self._seed = lengths_N, seed
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self._batches: dict[int, list[np.ndarray]] = {}
        self._starts = [0]  # the first step of each epoch that was made, and of the next one
        if not self._epoch(0):
            size = f"batch_size {batch_size} is" if batch_size else f"batch_tokens {batch_tokens} are"
            raise BatchSizeError(
                f"{size} more than there is to train on: {len(lengths_N)} texts of {int(lengths_N.sum())} tokens.",
                "Lower it, or add texts to the corpus.",
            )

    def positions(self, step: int) -> np.ndarray:
        """Positions of the texts of a batch.

        Args:
            step: Counting from 0.

        Returns:
            `[B]`, in random order.
        """
        epoch, batch = self._place(step)
        return self._epoch(epoch)[batch]

    def steps(self, texts: int) -> int:
        """Steps to see this many texts; a batch that begins before that is whole.

        Args:
            texts: How many, repetitions included.
        """
        # The nearest number of whole batches; batches counted in tokens have to be cut before they can be counted.
        if self._batch_size:
            return max(1, round(texts / self._batch_size))
        step = seen = 0
        while seen < texts:
            seen += len(self.positions(step))
            step += 1
        return step

    def _place(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and the number of its batch in it."""
        if self._batch_size:
            # Every epoch has as many batches, so a resumed run finds its place without making the epochs before.
            return divmod(step, len(self._lengths_N) // self._batch_size)
        # Epochs differ in their number of batches: each order is cut elsewhere. An epoch whose end is known is not made
        # again to find a step before that.
        while self._starts[-1] <= step:
            self._starts.append(self._starts[-1] + len(self._epoch(len(self._starts) - 1)))
        epoch = bisect_right(self._starts, step) - 1
        return epoch, step - self._starts[epoch]

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        """The whole batches of an epoch."""
        if epoch not in self._batches:
            # A generator per epoch and not one for all: any epoch can be made without those before it.
            order_N = np.random.default_rng([self._seed, epoch]).permutation(len(self._lengths_N))
            if self._batch_size:
                ends = np.arange(self._batch_size, len(order_N) + 1, self._batch_size)
            else:
                assert self._batch_tokens is not None
                ends = _token_cuts(self._lengths_N[order_N], self._batch_tokens)
            # One epoch is kept: orders of millions of texts add up. The texts after the last cut are not a whole batch.
            self._batches = {epoch: np.split(order_N, ends)[:-1] if len(ends) else []}
        return self._batches[epoch]


def _token_cuts(lengths_N: np.ndarray, batch_tokens: int) -> np.ndarray:
    """Where to cut a row of texts into parts of at most `batch_tokens` tokens; a longer text is its own part."""
    # Searching the running sum finds a cut in O(log N); a step of Python per batch, not per text.
    total_N = np.concatenate([[0], np.cumsum(lengths_N)])
    ends: list[int] = []
    start = 0
    while True:
        end = max(start + 1, int(np.searchsorted(total_N, total_N[start] + batch_tokens, side="right")) - 1)
        if end >= len(lengths_N):
            return np.array(ends, dtype=np.int64)
        ends.append(end)
        start = end


def equal_groups(widths_B: np.ndarray, count: int) -> list[np.ndarray]:
    """Cut a batch into a number of groups of similar length and equal size: positions, the widest texts first.

    Processes that work together must pass through the encoder equally often, whatever texts each of them has.

    Args:
        widths_B: Padded tokens of each text.
        count: Number of groups. Where there are fewer texts, the narrowest stands for a group that would be empty, and
            is in several.
    """
    # Stable sorts: ties in another order would change the last bits of a sum, and with them a resumed run.
    order_B = np.argsort(-widths_B, kind="stable")
    return [group if len(group) else order_B[-1:] for group in np.array_split(order_B, count)]


def length_groups(widths_B: np.ndarray, group_cost: int, max_texts: int | None = None) -> list[np.ndarray]:
    """Cut a batch into groups of similar length with the least work: padded tokens, plus `group_cost` per group.

    Exact, by dynamic programming over the distinct widths.

    Args:
        widths_B: Padded tokens of each text.
        group_cost: What a group costs in addition to its tokens, in tokens.
        max_texts: Largest size of a group.

    Returns:
        Positions in the batch, group by group, the widest texts first.
    """
    # An optimal group is a range of the sorted widths, so W widths have W^2 / 2 candidates; W is small, as widths are
    # multiples of 8. `widths_W` is negated to be ascending for `unique`: subtracting it below adds the width.
    order_B = np.argsort(-widths_B, kind="stable")
    widths_W, first_W = np.unique(-widths_B[order_B], return_index=True)
    ends_W = [*first_W[1:].tolist(), len(order_B)]
    best: list[tuple[float, int]] = [(0.0, 0)]  # least work of the first w widths, and where their last group begins
    for last in range(len(widths_W)):
        options = [
            (best[first][0] - widths_W[first] * (ends_W[last] - first_W[first]) + group_cost, first)
            for first in range(last + 1)
        ]
        best.append(min(options))
    # From the last group back to the first, each where the best solution says that it begins.
    cuts, at = [], len(widths_W)
    while at:
        at = best[at][1]
        cuts.append(int(first_W[at]))
    groups = np.split(order_B, sorted(cuts)[1:])
    if max_texts is None:
        return groups
    # Cut afterwards: a cap only bounds memory, and the search stays one over distinct widths.
    return [group[start : start + max_texts] for group in groups for start in range(0, len(group), max_texts)]
