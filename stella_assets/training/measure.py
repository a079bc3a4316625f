"""How good a student is on held-out texts: the stage's loss, and the share of the teachers' neighbours that it finds.

Shapes: M texts measured, B texts of a batch, D dimensions of the teachers together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from stella_assets.students import FULL
from stella_assets.training.data import Batch, Feed, Reading, TrainingData
from stella_assets.training.gram import gram
from stella_assets.training.objective import Objective, stage_loss
from stella_assets.training.plan import GROUP_COST
from stella_assets.training.sizes import DEV_TEXTS
from stella_assets.training.targets import Spread

DEV_BATCH = 128
"""Losses over pairs depend on the batch size, so every stage is measured with the same one."""
NEIGHBOURS = 10
# Its Gram matrix in float64 is 128 MiB; a standard deviation over 8 million pairs needs no more texts.
SPREAD_TEXTS = 4096

Project = Callable[[Batch], dict[str, Tensor]]
"""Unit vectors of a batch's texts, by head."""


class Measurement:
    """Measures a student on the first texts of the dev split; ids are hashes, so these are a random sample.

    Args:
        objective: The losses of the stage.
        dev: The dev split, or its pairs.
        spread: The teachers' spread.
        device: Where losses are computed.
    """

    def __init__(self, objective: Objective, dev: Feed, spread: Spread, device: torch.device) -> None:
        self._objective, self._spread = objective, spread
        self._device = device
        rows = min(DEV_TEXTS, len(dev))
        chosen = [np.arange(start, min(start + DEV_BATCH, rows)) for start in range(0, rows, DEV_BATCH)]
        # Read once and kept. Not shared out: every process measures all texts, so all choose the same best step.
        self.batches = dev.read(chosen, Reading(GROUP_COST[device.type]))
        self.texts = sum(len(batch.positions_B) for batch in self.batches)
        self._nearest_MK = _nearest(torch.cat([batch.targets.vectors for batch in self.batches]))

    def __call__(self, project: Project) -> dict[str, float]:
        """Mean of each term over the texts; `neighbours`; and `total`, last.

        `neighbours` is the share of the teachers' 10 nearest neighbours of a text, among these texts, that are among
        the student's 10 nearest.

        Args:
            project: Gives the student's unit vectors of a batch, by head.
        """
        with torch.no_grad():  # FSDP gathers weights here that the next step trains
            projected = [project(batch) for batch in self.batches]
            found = _nearest(torch.cat([heads[FULL].cpu() for heads in projected]))
            terms = self._losses(projected)
        total = terms.pop("total")
        return {**terms, "neighbours": _overlap(found, self._nearest_MK), "total": total}

    def total(self, project: Project) -> float:
        """Only the loss, without the neighbours.

        Args:
            project: Gives the student's unit vectors of a batch, by head.
        """
        with torch.no_grad():
            return self._losses([project(batch) for batch in self.batches])["total"]

    def _losses(self, projected: Sequence[dict[str, Tensor]]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for batch, heads in zip(self.batches, projected, strict=True):
            targets = batch.targets.to(self._device)
            loss = stage_loss(self._objective, heads, targets, self._spread)
            # Weighted by texts, as the last batch may be smaller.
            for name, value in loss.values().items():
                sums[name] = sums.get(name, 0.0) + value * len(batch.positions_B) / self.texts
        return sums


def measure_spread(train: TrainingData) -> Spread:
    """The spread of the stage's teachers.

    Measured on the first texts; ids are hashes, so these are a random sample.

    Args:
        train: The texts, with the vectors of the stage's teachers.
    """
    return Spread.of(train.targets(np.arange(min(SPREAD_TEXTS, len(train)))))


def _nearest(vectors_MD: Tensor) -> Tensor:
    """The nearest neighbours of each text among all, `[M, K]`, itself left out."""
    # A text is its own nearest neighbour; minus infinity keeps it out also where all cosines are negative.
    cosines_MM = gram(vectors_MD).fill_diagonal_(-torch.inf)
    return cosines_MM.topk(min(NEIGHBOURS, len(vectors_MD) - 1), dim=1).indices


def _overlap(a_MK: Tensor, b_MK: Tensor) -> float:
    """Share of neighbours that two lists have in common."""
    if not a_MK.numel():
        return 1.0
    return (a_MK[:, :, None] == b_MK[:, None, :]).any(dim=2).double().mean().item()
