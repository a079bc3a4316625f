"""Stage 1 in closed form: with a frozen encoder the linear teacher head is a least-squares problem.

One pass over the stored vectors makes the sums that a ridge regression (Hoerl and Kennard, 1970) needs. Two things set
it apart from plain ridge, which descent would beat:

- Vectors count by their direction. The student's vector y = W x + b is normalised before it is compared, so a text's
  target is r t with r = |y|, and its weight 1 / r^2: `|y - r t|^2 / r^2` is twice the cosine loss. r comes from a
  solution of a sample (iteratively reweighted least squares).
- Least squares shrinks what it cannot predict, so the student's texts come out more alike than the teachers'. Each
  principal direction of y is rescaled towards the variance that the teachers have along it, by an exponent between
  0 and 1.

Strength and exponent are those with the lowest dev loss of the stage.

Shapes: N texts of a block, S texts of the sample, H hidden dimensions of the encoder, D dimensions of the teachers
together, K directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from stella_assets.recipe import Stage
from stella_assets.students.dense import Student
from stella_assets.training.data import Batch, TrainingData
from stella_assets.training.frozen import BLOCK_TEXTS, pooled_blocks
from stella_assets.training.measure import Measurement, measure_spread
from stella_assets.training.targets import teacher_part

RIDGE_LAMBDAS = (1e-5, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Shares of the mean variance of a pooled dimension."""
EXPONENT_STEP = 0.25
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
SAMPLE_BLOCKS = 4
REWEIGHTED = 4
LARGEST_RESCALING = 20.0


@dataclass(frozen=True)
class Solved:
    """What came of solving.

    Attributes:
        ridge_lambda: Of the ridge.
        exponent: Of the rescale.
        tried: Dev loss of each ridge_lambda, without a rescale, and of each exponent with the best of them.
        log: One row a measured value, of the table `training_log`: before, as step 0, and after, as step 1.
    """

    ridge_lambda: float
    exponent: float
    tried: dict[str, float]
    log: list[dict[str, Any]]


@dataclass(frozen=True)
class Linear:
    """`y = W x + b`."""

    weight_DH: Tensor
    bias_D: Tensor

    def __call__(self, x_NH: Tensor) -> Tensor:
        """Vectors `[N, D]`, not normalised."""
        return torch.nn.functional.linear(x_NH.to(self.weight_DH), self.weight_DH, self.bias_D)


class NormalEquations:
    """Sums over texts that a weighted ridge regression with an intercept needs, in float64.

    Memory is `H (H + D)` numbers, whatever the count of texts.
    """

    def __init__(self, hidden: int, dim: int, device: torch.device) -> None:
        self._weight = 0.0
        self._x_H, self._y_D = (torch.zeros(n, dtype=torch.float64, device=device) for n in (hidden, dim))
        self._xx_HH = torch.zeros(hidden, hidden, dtype=torch.float64, device=device)
        self._xy_HD = torch.zeros(hidden, dim, dtype=torch.float64, device=device)

    def add(self, x_NH: Tensor, y_ND: Tensor, weight_N: Tensor | None = None) -> None:
        """Take in some texts, each with weight 1 or its own."""
        weight_N = torch.ones(len(x_NH), device=x_NH.device) if weight_N is None else weight_N
        weighted_NH = x_NH * weight_N[:, None].to(x_NH)
        # Products of a block are exact enough as they are; sums of millions of texts would not be.
        self._weight += weight_N.double().sum().item()
        self._xx_HH += weighted_NH.T @ x_NH
        self._xy_HD += weighted_NH.T @ y_ND.to(x_NH)
        self._x_H += weighted_NH.sum(dim=0)
        self._y_D += (y_ND * weight_N[:, None].to(y_ND)).sum(dim=0)

    def means(self) -> tuple[Tensor, Tensor]:
        """Means `[H]` and `[D]`."""
        return self._x_H / self._weight, self._y_D / self._weight

    def covariance(self) -> Tensor:
        """Covariance `[H, H]` of x."""
        mean_H = self._x_H / self._weight
        return self._xx_HH / self._weight - torch.outer(mean_H, mean_H)

    def solve(self, ridge_lambda: float) -> Linear:
        """The map with the least squared error, `ridge_lambda` against large weights; the intercept is not held back.

        `ridge_lambda` counts in shares of the mean variance of a dimension of x.
        """
        mean_H, mean_D = self.means()
        covariance_HH = self.covariance()
        ridge = ridge_lambda * covariance_HH.diagonal().mean()
        system_HH = covariance_HH + ridge * torch.eye(len(mean_H), dtype=torch.float64, device=mean_H.device)
        cross_HD = self._xy_HD / self._weight - torch.outer(mean_H, mean_D)
        weight_DH = torch.linalg.solve(system_HH, cross_HD).T
        return Linear(weight_DH, mean_D - weight_DH @ mean_H)


class Norms:
    """How long the student's vectors are before they are normalised: what a text's target and weight depend on."""

    def __init__(self, x_SH: Tensor, t_SD: Tensor) -> None:
        """From a sample of pooled states and teachers' unit vectors."""
        weight_S, target_SD = torch.ones(len(x_SH), device=x_SH.device), t_SD
        for _ in range(REWEIGHTED):
            equations = NormalEquations(x_SH.shape[1], t_SD.shape[1], x_SH.device)
            equations.add(x_SH, target_SD, weight_S)
            self._map = equations.solve(1e-3)
            self._mean = self._map(x_SH).norm(dim=1).mean()
            target_SD, weight_S = self.weigh(x_SH, t_SD)

    def weigh(self, x_NH: Tensor, t_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Targets `r t` and weights `1 / r^2` of some texts."""
        r_N = (self._map(x_NH).norm(dim=1) / self._mean).clamp(min=0.1).to(t_ND)
        return t_ND * r_N[:, None], r_N**-2


def solve_stage(student: Student, stage: Stage, name: str, data: Mapping[str, TrainingData]) -> Solved:
    """Solve the teacher head, in place.

    Args:
        student: Its encoder stays as it is.
        stage: Which teachers, how many texts, and the losses by which ridge_lambda and exponent are chosen.
        name: For the log.
        data: Splits `train` and `dev`.
    """
    dim, device = student.dims[0], student.device
    student.train_only(0, [dim])
    train = data["train"] if stage.texts is None else data["train"].first(stage.texts)
    part = teacher_part(train.snapshot.layout, stage.teachers)
    head = student.head(dim)

    blocks = ((x_NH, batch.targets.to(device).vectors) for batch, x_NH in pooled_blocks(student, train, name))
    sample = list(islice(blocks, SAMPLE_BLOCKS))
    x_SH, t_SD = (torch.cat(parts) for parts in zip(*sample, strict=True))
    norms = Norms(x_SH, t_SD)
    equations = NormalEquations(student.hidden, t_SD.shape[1], device)
    for x_NH, t_ND in chain(zip(x_SH.split(BLOCK_TEXTS), t_SD.split(BLOCK_TEXTS), strict=True), blocks):
        equations.add(x_NH, *norms.weigh(x_NH, t_ND))

    measure = Measurement(stage, dim, data["dev"], measure_spread(train, stage), device)
    with torch.inference_mode():
        states = {id(b): torch.cat([student.pool(group) for group in b.groups])[b.places] for b in measure.batches}

    def project(batch: Batch) -> dict[int, Tensor]:
        return dict(student(states[id(batch)], [dim], part))

    def take(solution: Linear) -> None:
        head.set(solution.weight_DH, solution.bias_D, part)

    def loss(solution: Linear) -> float:
        take(solution)
        return measure.total(project)

    before = measure(project)
    losses = {ridge_lambda: loss(equations.solve(ridge_lambda)) for ridge_lambda in RIDGE_LAMBDAS}
    ridge_lambda = min(losses, key=losses.__getitem__)
    rescale = VarianceRescaling(equations.solve(ridge_lambda), equations, t_SD)
    rescaled = {exponent: loss(rescale(exponent)) for exponent in EXPONENTS}
    nearest = min(rescaled, key=rescaled.__getitem__)
    beside = [nearest - EXPONENT_STEP / 2, nearest + EXPONENT_STEP / 2]
    rescaled |= {exponent: loss(rescale(exponent)) for exponent in beside if 0 < exponent < 1}
    exponent = min(rescaled, key=rescaled.__getitem__)
    take(rescale(exponent))
    after = measure(project)
    log = [
        {"stage": name, "step": step, "split": "dev", "term": term, "value": value, "learning_rate": 0.0}
        for step, values in enumerate((before, after))
        for term, value in values.items()
    ]
    tried = {f"ridge_lambda {key:g}": value for key, value in losses.items()}
    return Solved(ridge_lambda, exponent, tried | {f"exponent {key:g}": value for key, value in rescaled.items()}, log)


class VarianceRescaling:
    """Gives back, in part, the variance that least squares takes from what it cannot predict."""

    def __init__(self, solution: Linear, equations: NormalEquations, t_SD: Tensor) -> None:
        """Compare the variance of a solution along its principal directions with that of the teachers' vectors."""
        self._solution = solution
        self._centre_D = solution(equations.means()[0][None])[0]
        values_H, vectors_HH = torch.linalg.eigh(equations.covariance())
        root_HH = vectors_HH * values_H.clamp(min=0).sqrt()
        self._directions_DK, deviation_K, _ = torch.linalg.svd(solution.weight_DH @ root_HH, full_matrices=False)
        centred_SD = t_SD.double() - t_SD.double().mean(dim=0)
        teachers_K = (centred_SD @ self._directions_DK).std(dim=0, correction=0)
        self._ratio_K = (teachers_K / deviation_K.clamp(min=1e-9)).clamp(max=LARGEST_RESCALING)

    def __call__(self, exponent: float) -> Linear:
        """The solution with each direction k rescaled by `ratio_k ** exponent` about the centre."""
        factor_K = self._ratio_K**exponent
        along_DK = self._directions_DK * (factor_K - 1)

        def rescaled(vectors_D: Tensor) -> Tensor:
            return vectors_D + along_DK @ (self._directions_DK.T @ vectors_D)

        weight_DH, bias_D = self._solution.weight_DH, self._solution.bias_D
        return Linear(rescaled(weight_DH), self._centre_D + rescaled(bias_D - self._centre_D))
