"""One split of a snapshot as a student reads it: tokens in groups of similar length, and the teachers' vectors.

Shapes: B texts of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stella_assets.core.batching import padded_widths
from stella_assets.teachers.refusal import positions_in_corpus
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.training.plan import GROUP_COST, equal_groups, length_groups
from stella_assets.training.targets import Targets
from stella_assets.training.tokens import TokenTable

# Fixed, as each process has other lengths: a search by cost would give them different numbers of passes.
SHARED_PASSES = 4
"""Groups of a batch where several processes share it."""


@dataclass(frozen=True)
class Batch:
    """What a step of training works with.

    Attributes:
        positions_B: Which texts of the split.
        share: Which of these this process puts through the encoder.
        groups: Features of the texts of the share, in groups of similar length.
        places: For each text of the share, its place in the groups.
        tokens: Of all texts, without padding.
        targets: The teachers' vectors of all texts.
    """

    positions_B: np.ndarray
    share: slice
    groups: list[dict[str, Any]]
    places: Tensor
    tokens: int
    targets: Targets


@dataclass(frozen=True)
class Reading:
    """How batches are read: this process's place among those of the run, and how groups are cut.

    Attributes:
        group_cost: What one more group costs in addition to its tokens, in tokens.
        max_texts: Largest size of a group; None for any.
        tokens: Whether tokens are read; not where pooled states are known already.
        process: Number of this process, counting from 0.
        processes: How many share a batch.
    """

    group_cost: int = GROUP_COST["cpu"]
    max_texts: int | None = None
    tokens: bool = True
    process: int = 0
    processes: int = 1

    def share(self, texts: int) -> slice:
        """This process's part of a batch; parts differ by one text at most."""
        # `Gradients` computes the same bounds to put the parts together again.
        bounds = [texts * number // self.processes for number in (self.process, self.process + 1)]
        return slice(*bounds)

    def passes(self, texts: int) -> int:
        """How often each of several processes passes through the encoder for a batch."""
        # Counted by the largest share, so that all processes agree: a collective call that one of them skips hangs all.
        largest = -(-texts // self.processes)
        return -(-largest // self.max_texts) if self.max_texts else max(1, min(SHARED_PASSES, largest // 8))


class Feed(Protocol):
    """What batches are made of: the texts of a split, or its pairs."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, chosen: Sequence[np.ndarray], reading: Reading) -> list[Batch]:
        """Some batches.

        Args:
            chosen: Positions of what each batch is made of.
            reading: How they are read.
        """


class TrainingData:
    """One split of a snapshot. Tokens and vectors stay on disk until their batch is read."""

    def __init__(
        self,
        snapshot: Snapshot,
        tokens: TokenTable,
        split: str,
        teachers: Sequence[str] | None = None,
        left_out: np.ndarray | None = None,
    ) -> None:
        """Open a split.

        Args:
            snapshot: The teachers' vectors.
            tokens: Of the same corpus.
            split: `train`, `dev` or `test`.
            teachers: Those to learn from; all when left out.
            left_out: Rows of the snapshot that are not used.
        """
        assert len(tokens) == len(snapshot) + len(snapshot.left_out), "tokens and vectors are of the same corpus"
        self.snapshot = snapshot
        self.rows = snapshot.rows(split)
        if left_out is not None:
            # Sorted like the rows themselves, so positions still follow the ids.
            self.rows = np.setdiff1d(self.rows, left_out, assume_unique=True)
        self._token_rows = positions_in_corpus(self.rows, snapshot.left_out)
        self.lengths = tokens.lengths[self._token_rows]
        self._tokens = tokens.texts
        self._teachers = teachers
        # Limited by the longest text of all splits, which the model is known to take.
        self._widths = padded_widths(self.lengths, int(tokens.lengths.max()))

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, texts: int) -> TrainingData:
        """Only the first texts; ids are hashes, so these are a random sample.

        Args:
            texts: How many; all where there are fewer.
        """
        # A shallow copy: tokens and vectors are shared with the original.
        sample = copy(self)
        sample.rows, sample.lengths, sample._widths = self.rows[:texts], self.lengths[:texts], self._widths[:texts]
        sample._token_rows = self._token_rows[:texts]
        return sample

    def of_teachers(self, teachers: Sequence[str]) -> TrainingData:
        """The same texts with the vectors of some teachers.

        Args:
            teachers: Their names.
        """
        chosen = copy(self)
        chosen._teachers = teachers
        return chosen

    def ids(self, positions_B: np.ndarray) -> list[str]:
        """Hashes of texts."""
        # Keys are 16 raw bytes each; one conversion to bytes, then slices, instead of one numpy scalar per text.
        packed = self.snapshot.keys[self.rows[positions_B]].tobytes()
        return [packed[start : start + 16].hex() for start in range(0, len(packed), 16)]

    def targets(self, positions_B: np.ndarray) -> Targets:
        """The vectors of the stage's teachers.

        Args:
            positions_B: Which texts of the split.
        """
        return self.read([positions_B], Reading(tokens=False))[0].targets

    def read(self, chosen: Sequence[np.ndarray], reading: Reading) -> list[Batch]:
        """Some batches, their vectors in one read of the store.

        Args:
            chosen: Positions `[B]` of the texts of each batch.
            reading: How they are read.

        Returns:
            One batch per entry of `chosen`. Its vectors are of all texts, its tokens of this process's share.
        """
        # All texts, as the losses compare the whole batch; vectors stay float16 until they are on the device.
        blocks = torch.from_numpy(self.snapshot.vectors(self.rows[np.concatenate(chosen)]))
        batches = []
        for positions, block in zip(chosen, blocks.split([len(positions) for positions in chosen]), strict=True):
            share = reading.share(len(positions))
            own = positions[share]
            # A process without texts passes one through the encoder like the others, and uses nothing of it.
            read = own if len(own) else positions[:1]
            order = self._order(read, reading, len(positions))
            batches.append(
                Batch(
                    positions,
                    share,
                    [self._features(read[group]) for group in order],
                    _places(order, len(own)),
                    int(self.lengths[positions].sum()),
                    Targets.of(block, self.snapshot.layout, self._teachers),
                )
            )
        return batches

    def _order(self, positions_B: np.ndarray, reading: Reading, batch: int) -> list[np.ndarray]:
        if not reading.tokens:
            return []
        if reading.processes == 1:
            return length_groups(self._widths[positions_B], reading.group_cost, reading.max_texts)
        return equal_groups(self._widths[positions_B], reading.passes(batch))

    def _features(self, positions_B: np.ndarray) -> dict[str, Any]:
        return self._tokens.batch(self._token_rows[positions_B], int(self._widths[positions_B].max()))


def _places(groups: Sequence[np.ndarray], texts: int) -> Tensor:
    """For each of a number of texts, its place in the groups, the first one where it is in several."""
    if not groups:
        return torch.empty(0, dtype=torch.int64)
    flat = np.concatenate(groups)
    places = np.empty(int(flat.max()) + 1, dtype=np.int64)
    # Backwards: of several assignments to one text the last one stays.
    places[flat[::-1]] = np.arange(len(flat))[::-1]
    return torch.from_numpy(places[:texts])
