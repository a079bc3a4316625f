"""Stage 1 in closed form: with a frozen encoder the linear teacher head is a least-squares problem.

Ridge regression (Hoerl and Kennard, 1970) of the teachers' vectors on the pooled states, in one pass over the stored
vectors: the normal equations are sums over texts. The strength is the one with the lowest dev loss of the stage.

Shapes: N texts, H hidden dimensions of the encoder, D dimensions of the teachers together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stella_assets.recipe import Stage
from stella_assets.training.data import Batch, TrainingData
from stella_assets.training.frozen import pooled_blocks
from stella_assets.training.loop import measure_spread, teacher_part
from stella_assets.training.measure import Measurement
from stella_assets.training.student import Student

STRENGTHS = tuple(10.0**power for power in np.arange(-6, 1.01, 0.5))
"""Shares of the mean variance of a pooled dimension."""


@dataclass(frozen=True)
class Solved:
    """What came of solving.

    Attributes:
        strength: The one that was chosen.
        losses: Dev loss by strength.
        log: One row a measured value, of the table `training_log`: before, as step 0, and after, as step 1.
    """

    strength: float
    losses: dict[float, float]
    log: list[dict[str, Any]]


class NormalEquations:
    """Sums over texts that a ridge regression with an intercept needs, in float64.

    Memory is `H (H + D)` numbers, whatever the count of texts.
    """

    def __init__(self, hidden: int, dim: int, device: torch.device) -> None:
        self.texts = 0
        self._x_H, self._y_D = (torch.zeros(n, dtype=torch.float64, device=device) for n in (hidden, dim))
        self._xx_HH = torch.zeros(hidden, hidden, dtype=torch.float64, device=device)
        self._xy_HD = torch.zeros(hidden, dim, dtype=torch.float64, device=device)

    def add(self, x_NH: Tensor, y_ND: Tensor) -> None:
        """Take in some texts."""
        self.texts += len(x_NH)
        # Products in float32: sums of a block are exact enough, sums over millions of texts would not be.
        self._xx_HH += x_NH.T @ x_NH
        self._xy_HD += x_NH.T @ y_ND
        self._x_H += x_NH.sum(dim=0)
        self._y_D += y_ND.sum(dim=0)

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """Weights `[D, H]` and intercept `[D]` that minimise the squared error, `strength` against large weights.

        The intercept is not held back. `strength` counts in shares of the mean variance of a dimension of x.
        """
        mean_H, mean_D = self._x_H / self.texts, self._y_D / self.texts
        covariance_HH = self._xx_HH / self.texts - torch.outer(mean_H, mean_H)
        cross_HD = self._xy_HD / self.texts - torch.outer(mean_H, mean_D)
        ridge = strength * covariance_HH.diagonal().mean()
        system_HH = covariance_HH + ridge * torch.eye(len(mean_H), dtype=torch.float64, device=mean_H.device)
        weight_DH = torch.linalg.solve(system_HH, cross_HD).T
        return weight_DH, mean_D - weight_DH @ mean_H


def solve_stage(student: Student, stage: Stage, name: str, data: Mapping[str, TrainingData]) -> Solved:
    """Solve the teacher head, in place.

    Args:
        student: Its encoder stays as it is.
        stage: Which teachers, how many texts, and the losses by which the strength is chosen.
        name: For the log.
        data: Splits `train` and `dev`.
    """
    dim, device = student.dims[0], student.device
    train = data["train"] if stage.texts is None else data["train"].first(stage.texts)
    part = teacher_part(train.snapshot.layout, stage.teachers)
    equations = NormalEquations(student.hidden, dim if part is None else len(part), device)
    for batch, pooled_BH in pooled_blocks(student, train, name):
        equations.add(pooled_BH, batch.targets.to(device).vectors)
    measure = Measurement(stage, dim, data["dev"], measure_spread(train, stage), device)
    with torch.inference_mode():
        states = {
            id(batch): torch.cat([student.pool(g) for g in batch.groups])[batch.places] for batch in measure.batches
        }

    def project(batch: Batch) -> dict[int, Tensor]:
        return dict(student(states[id(batch)], [dim], part))

    before = measure(project)
    tried = []
    for strength in STRENGTHS:
        solution = equations.solve(strength)
        student.head(dim).set(*solution, part)
        tried.append((measure(project), strength, solution))
    best, strength, solution = min(tried, key=lambda attempt: attempt[0]["total"])
    student.head(dim).set(*solution, part)
    rows = [(0, before), (1, best)]
    log = [
        {"stage": name, "step": step, "split": "dev", "term": term, "value": value, "learning_rate": 0.0}
        for step, values in rows
        for term, value in values.items()
    ]
    return Solved(strength, {s: values["total"] for values, s, _ in tried}, log)
