"""The teachers' vectors of a batch, and how far their similarities spread.

Shapes: B texts of a batch, S texts of a sample, D dimensions of all teachers together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from stella_assets.teachers.snapshot import Layout
from stella_assets.training.gram import gram

if TYPE_CHECKING:
    from stella_assets.training.pairs import BatchPairs


class Targets:
    """The vectors of a batch's texts by the teachers that a stage learns from."""

    def __init__(
        self,
        blocks: Sequence[Tensor],
        weights: Sequence[float],
        means: Sequence[Tensor | None] | None = None,
        pairs: BatchPairs | None = None,
    ) -> None:
        """Take one block `[B, dim_k]` of vectors per teacher, and how the teachers are joined.

        Args:
            blocks: Of any number format; they are normalised when they are used.
            weights: Above 0; only their ratios count.
            means: Of each teacher, what is taken from its unit vectors, or None; none are centred when left out.
            pairs: Which of the texts belong together; None in a stage that does not read pairs.
        """
        # Blocks of unit norm, times weights of squared sum 1, give a concatenation of unit norm.
        norm = sum(weight**2 for weight in weights) ** 0.5
        self._weights = [weight / norm for weight in weights]
        self._blocks = list(blocks)
        self._means = [None] * len(self._blocks) if means is None else list(means)
        self.pairs = pairs

    def to(self, device: torch.device) -> Targets:
        """The same targets on a device."""
        # As they are: float16 is half of what float32 would take over the bus.
        means = [None if mean is None else mean.to(device) for mean in self._means]
        pairs = self.pairs.to(device) if self.pairs else None
        return Targets([block.to(device) for block in self._blocks], self._weights, means, pairs)

    def with_pairs(self, pairs: BatchPairs) -> Targets:
        """The same targets, with the pairs of their texts.

        Args:
            pairs: Their places count from the first text.
        """
        return Targets(self._blocks, self._weights, self._means, pairs)

    def require_pairs(self) -> BatchPairs:
        """The pairs of a stage that reads pairs; the recipe was validated."""
        assert self.pairs is not None
        return self.pairs

    @cached_property
    def _units(self) -> list[Tensor]:
        # Rounded to float16 in the store, vectors are slightly off unit norm, and losses near 0 would show it.
        units = (normalize(block.float(), dim=1) for block in self._blocks)
        # Of unit norm again, so that weights mean the same for a centred teacher.
        return [
            unit if mean is None else normalize(unit - mean, dim=1)
            for unit, mean in zip(units, self._means, strict=True)
        ]

    @classmethod
    def of(cls, vectors_BD: Tensor, layout: Layout, teachers: Sequence[str] | None = None) -> Targets:
        """From the vectors as the store has them, side by side; of the named teachers, or of all.

        Args:
            vectors_BD: Of all teachers of the layout.
            layout: Which teacher is where, with which weight, and around which mean.
            teachers: Those to learn from; all when left out.
        """
        blocks = dict(zip(layout.teachers, vectors_BD.split(layout.dims, dim=1), strict=True))
        weights = dict(zip(layout.teachers, layout.weights, strict=True))
        # In the order of the layout, which is also that of `teacher_part`, whatever order the recipe names them in.
        chosen = layout.teachers if teachers is None else [name for name in layout.teachers if name in teachers]
        means = [None if (mean := layout.mean_of(name)) is None else torch.from_numpy(mean) for name in chosen]
        return cls([blocks[name] for name in chosen], [weights[name] for name in chosen], means)

    @cached_property
    def vectors(self) -> Tensor:
        """Unit vectors `[B, D]`: `norm(concat(w_k t_k))` (arXiv 2412.19048, section 2.1), float32."""
        return torch.cat([weight * block for weight, block in zip(self._weights, self._units, strict=True)], dim=1)

    @cached_property
    def gram(self) -> Tensor:
        """The teachers' cosines `[B, B]`: the mean of each teacher's own, by squared weight; no concatenation."""
        # The inner product of two concatenations is the sum of w_k^2 times those of the blocks.
        grams = [weight**2 * gram(block) for weight, block in zip(self._weights, self._units, strict=True)]
        return torch.stack(grams).sum(dim=0)


def teacher_part(layout: Layout, teachers: Sequence[str] | None) -> Tensor | None:
    """Dimensions of the concatenation that belong to the named teachers; None for all.

    Args:
        layout: Which teacher is where.
        teachers: Their names; None for all.

    Returns:
        Positions, int64, ascending.
    """
    # None and not all positions: indexing with them would copy every batch.
    if teachers is None or set(teachers) == set(layout.teachers):
        return None
    ends = np.cumsum(layout.dims)
    spans = zip(layout.teachers, ends - np.array(layout.dims), ends, strict=True)
    return torch.from_numpy(np.concatenate([np.arange(start, end) for name, start, end in spans if name in teachers]))


def new_teachers(layout: Layout, taught: Tensor | None, teachers: Sequence[str] | None) -> list[str]:
    """The teachers of a stage that taught no stage before, in the order of the layout.

    Args:
        layout: Which teacher is where.
        taught: Positions that were taught before; None for all.
        teachers: Those of the stage; None for all.
    """
    if taught is None:
        return []
    known = set(taught.tolist())
    starts = dict(zip(layout.teachers, np.cumsum([0, *layout.dims]).tolist(), strict=False))
    # A stage teaches all rows of a teacher or none, so the first one tells.
    return [name for name in layout.teachers if (teachers is None or name in teachers) and starts[name] not in known]


def joined(before: Tensor | None, part: Tensor | None, dimension: int) -> Tensor | None:
    """The dimensions of either part, ascending; None for all.

    Args:
        before: Positions; None for all.
        part: Others; None for all.
        dimension: How many there are.
    """
    if before is None or part is None:
        return None
    both = torch.unique(torch.cat([before, part]))  # sorted
    return None if len(both) == dimension else both


@dataclass(frozen=True)
class Spread:
    """How far apart the teachers' vectors lie: the units of losses that carry over from one teacher to another.

    Attributes:
        distance: `1 - |mean vector|`: the cosine loss of the best answer that is the same for every text.
        deviation: Standard deviation of the cosines of two texts; its square is the similarity loss of that answer.
    """

    distance: float
    deviation: float

    @classmethod
    def of(cls, sample: Targets) -> Spread:
        """Measured on a sample of at least two texts.

        Args:
            sample: Targets of random texts.
        """
        # In float64: a mean over millions of cosines loses digits in float32.
        gram_SS = sample.gram.double()
        pairs = gram_SS[~torch.eye(len(gram_SS), dtype=torch.bool, device=gram_SS.device)]
        # |mean vector|^2 is the mean of the Gram matrix.
        distance = 1 - gram_SS.mean().clamp(min=0).sqrt().item()
        # Weights are divided by both; a teacher that gives all texts one vector must not make them infinite.
        return cls(max(distance, 1e-6), max(pairs.std(correction=0).item(), 1e-6))
