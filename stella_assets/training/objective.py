"""What a stage minimises: the losses of each head, weighted as the recipe says.

Shapes: B texts of a batch, D dimensions of the teachers together, S dimensions of a short head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stella_assets.recipe import LossWeights, Stage
from stella_assets.training.losses import (
    angular_loss,
    cosine_loss,
    gram,
    l2_loss,
    relative_similarity_loss,
    similarity_loss,
)
from stella_assets.training.settings import POINTWISE
from stella_assets.training.targets import Spread, Targets

POINTWISE_LOSSES = {"cosine": cosine_loss, "l2": l2_loss, "angular": angular_loss}
assert tuple(POINTWISE_LOSSES) == POINTWISE


@dataclass(frozen=True)
class Loss:
    """The weighted sum that is minimised, and each term by name, `640/cosine` and so on, unweighted."""

    total: Tensor
    terms: dict[str, Tensor]

    def values(self) -> dict[str, float]:
        """The terms and `total`, last, as numbers."""
        numbers = torch.stack([*self.terms.values(), self.total.detach()]).tolist()  # one wait for the device, not many
        return dict(zip([*self.terms, "total"], numbers, strict=True))


def stage_loss(stage: Stage, heads: Mapping[int, Tensor], teacher_dim: int, targets: Targets, spread: Spread) -> Loss:
    """The losses of a batch.

    Args:
        stage: Says which losses count, and what short heads learn from.
        heads: Unit vectors of each head that trains, by dimension.
        teacher_dim: Which of them is the teacher head.
        targets: The teachers' vectors.
        spread: The teachers' spread, for weights that are given in its units.
    """
    teacher_BD = heads[teacher_dim]
    total = teacher_BD.new_zeros(())
    shown: dict[str, Tensor] = {}

    def add(name: str, weights: LossWeights, student_BS: Tensor, target: Targets) -> None:
        nonlocal total
        for loss, (factor, term) in _head_terms(weights, spread, student_BS, target).items():
            total = total + factor * term
            shown[f"{name}/{loss}"] = term.detach()

    add(str(teacher_dim), stage.full_head, teacher_BD, targets)
    full_head = Targets([teacher_BD.detach()], [1.0])
    for dim, student_BS in heads.items():
        weights = stage.matryoshka_weights(dim) if dim != teacher_dim else None
        if weights is None:
            continue
        if "teachers" in stage.matryoshka_targets:
            add(str(dim), weights, student_BS, targets)
        if "full_head" in stage.matryoshka_targets:
            add(f"{dim}/self", weights, student_BS, full_head)
    return Loss(total, shown)


def _head_terms(
    weights: LossWeights, spread: Spread, student_BS: Tensor, target: Targets
) -> dict[str, tuple[float, Tensor]]:
    """Factor and value of each loss of one head that has a weight."""
    distance, deviation = (spread.distance, spread.deviation) if weights.normalize_by_teacher_std else (1.0, 1.0)
    terms: dict[str, tuple[float, Tensor]] = {}
    for name in POINTWISE:
        if name in weights.weights:
            terms[name] = weights.weights[name] / distance, POINTWISE_LOSSES[name](student_BS, target.vectors)
    if not weights.pairwise:
        return terms
    gram_BB = gram(student_BS)
    if weights.similarity:
        terms["similarity"] = weights.similarity / deviation**2, similarity_loss(gram_BB, target.gram)
    if weights.relative_similarity:
        margin = weights.margin * deviation
        gap = margin if weights.margin_needs_gap else 0.0
        value = relative_similarity_loss(gram_BB, target.gram, margin, gap)
        terms["relative_similarity"] = weights.relative_similarity / deviation, value
    return terms
