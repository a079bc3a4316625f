"""The full head in closed form: with a frozen encoder the linear head is a least-squares problem.

One pass over the stored vectors makes the sums that a ridge regression needs. Two things set it apart from plain ridge,
which gradient descent would beat:

- Vectors count by their direction. The student's vector y = W x + b is normalised before it is compared, so a text's
  target is r t with r = |y|, and its weight 1 / r^2: `|y - r t|^2 / r^2` is twice the cosine loss. r comes from a
  solution of a sample (iteratively reweighted least squares).
- Least squares shrinks what it cannot predict, so the student's texts come out more similar than the teachers'. Each
  principal direction of y is rescaled towards the variance that the teachers have along it, by an exponent between
  0 and 1 (variance rescaling).

The ridge lambda and the exponent are those with the lowest dev loss of the stage.

Shapes: N texts of a block, S texts of the sample, H hidden dimensions of the encoder, D dimensions of the teachers
together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from stella_assets.students import FULL
from stella_assets.students.dense.layers import train_only
from stella_assets.students.dense.model import DenseStudent
from stella_assets.training.data import Batch, TrainingData
from stella_assets.training.frozen import BLOCK_TEXTS, pooled_blocks
from stella_assets.training.measure import Measurement, measure_spread
from stella_assets.training.objective import Objective
from stella_assets.training.ridge import Linear, NormalEquations, Norms, VarianceRescaling

RIDGE_LAMBDAS = (1e-5, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Shares of the mean variance of a pooled dimension."""
EXPONENT_STEP = 0.25
# 0 leaves the ridge solution as it is, 1 gives every direction the teachers' whole variance.
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
# The sample decides norms and the teachers' variance only, so a few thousand texts are enough.
SAMPLE_BLOCKS = 4


@dataclass(frozen=True)
class Fit:
    """What fitting found.

    Attributes:
        ridge_lambda: Of the ridge regression.
        exponent: Of the variance rescaling.
        tried: Dev loss of each ridge lambda, without rescaling, and of each exponent with the best of them.
        texts_per_second: Of the pass over the texts.
        log: One row per measured value, of the table `training_log`: before, as step 0, and after, as step 1.
    """

    ridge_lambda: float
    exponent: float
    tried: dict[str, float]
    texts_per_second: float
    log: list[dict[str, Any]]


def fit_full_head(
    student: DenseStudent,
    objective: Objective,
    name: str,
    data: Mapping[str, TrainingData],
    part: Tensor | None = None,
    texts: int | None = None,
) -> Fit:
    """Fit the last layer of the full head, in place.

    Args:
        student: Its encoder stays as it is.
        objective: The losses by which ridge lambda and exponent are chosen.
        name: Of the stage, for the log.
        data: Splits `train` and `dev`.
        part: Positions of the rows that are fitted; all when left out.
        texts: Texts to fit to; all when left out.

    Returns:
        What was chosen, and the dev losses before and after.

    References:
        Holland and Welsch 1977, Robust regression using iteratively reweighted least-squares, Communications in
        Statistics 6(9).
    """
    # Nothing takes a gradient here; the head is marked so that the manifest counts what was trained.
    train_only(student, 0, [FULL])
    train = data["train"] if texts is None else data["train"].first(texts)
    started = time.monotonic()
    equations, t_SD = _sum_up(student, train, name)
    texts_per_second = len(train) / (time.monotonic() - started)
    measure = Measurement(objective, data["dev"], measure_spread(train), student.device)
    # The encoder does not change, so each of the dozen candidates needs only the head's product with these states.
    # Keys are identities, as batches hold tensors; `measure` keeps the batches alive, so no identity is used again.
    with torch.inference_mode():
        states = {id(b): torch.cat([student.pool(group) for group in b.groups])[b.places] for b in measure.batches}

    def project(batch: Batch) -> dict[str, Tensor]:
        return dict(student(states[id(batch)], [FULL], part))

    def take(solution: Linear) -> None:
        student.head(FULL).set(solution.weight_DH, solution.bias_D, part)

    def loss(solution: Linear) -> float:
        take(solution)
        return measure.total(project)

    # Before the first candidate is put into the head.
    before = measure(project)
    losses = {ridge_lambda: loss(equations.solve(ridge_lambda)) for ridge_lambda in RIDGE_LAMBDAS}
    ridge_lambda = min(losses, key=losses.__getitem__)
    # One after the other: a grid of both would take several times the measurements.
    rescale = VarianceRescaling(equations.solve(ridge_lambda), equations, t_SD)
    rescaled = _search(lambda exponent: loss(rescale(exponent)))
    exponent = min(rescaled, key=rescaled.__getitem__)
    # The search left its last candidate in the head.
    take(rescale(exponent))
    after = measure(project)
    log = [
        {"stage": name, "step": step, "split": "dev", "term": term, "value": value, "learning_rate": 0.0}
        for step, values in enumerate((before, after))
        for term, value in values.items()
    ]
    tried = {f"ridge_lambda {key:g}": value for key, value in losses.items()}
    tried |= {f"exponent {key:g}": value for key, value in rescaled.items()}
    return Fit(ridge_lambda, exponent, tried, texts_per_second, log)


def _sum_up(student: DenseStudent, train: TrainingData, name: str) -> tuple[NormalEquations, Tensor]:
    """The sums of all texts, and the teachers' vectors `[S, D]` of the sample, in one pass."""
    device, head = student.device, student.head(FULL)
    # What the last layer reads: the first one of a head of two layers stays as it is.
    blocks = (
        (head.state(x_NH).detach(), batch.targets.to(device).vectors)
        for batch, x_NH in pooled_blocks(student, train, name)
    )
    # The blocks of the sample are read first and counted again below, so that every text is encoded once.
    sample = list(islice(blocks, SAMPLE_BLOCKS))
    x_SH, t_SD = (torch.cat(parts) for parts in zip(*sample, strict=True))
    norms = Norms(x_SH, t_SD)
    equations = NormalEquations(x_SH.shape[1], t_SD.shape[1], device)
    # In blocks again: the products of one block are summed in float32, which a longer one would spoil.
    for x_NH, t_ND in chain(zip(x_SH.split(BLOCK_TEXTS), t_SD.split(BLOCK_TEXTS), strict=True), blocks):
        equations.add(x_NH, *norms.weigh(x_NH, t_ND))
    return equations, t_SD


def _search(loss: Callable[[float], float]) -> dict[float, float]:
    """Losses of exponents: on a grid, then half a step to both sides of the best one."""
    losses = {exponent: loss(exponent) for exponent in EXPONENTS}
    best = min(losses, key=losses.__getitem__)
    finer = [best - EXPONENT_STEP / 2, best + EXPONENT_STEP / 2]
    # Above 1 a direction would get more variance than the teachers have, below 0 less than ridge leaves it.
    return losses | {exponent: loss(exponent) for exponent in finer if 0 < exponent < 1}
