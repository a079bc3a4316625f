"""What a stage minimises: the three losses of each head, weighted as the recipe says."""

from __future__ import annotations

from torch import Tensor

from stella_assets.recipe import LossWeights, Stage
from stella_assets.training.losses import cosine_loss, relative_similarity_loss, similarity_loss
from stella_assets.training.student import Student


def head_terms(
    student_BD: Tensor, target_BD: Tensor, target_gram_BB: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """The losses of one head that have a weight, not yet weighted.

    Args:
        student_BD: The head's unit vectors.
        target_BD: The teachers' unit vectors; the cosine loss needs equal dimensions.
        target_gram_BB: The teachers' cosines.
        weights: Which losses count.
    """
    terms = {}
    gram_BB = student_BD @ student_BD.T
    if weights.cosine:
        terms["cosine"] = cosine_loss(student_BD, target_BD)
    if weights.similarity:
        terms["similarity"] = similarity_loss(gram_BB, target_gram_BB)
    if weights.relative_similarity:
        terms["relative_similarity"] = relative_similarity_loss(gram_BB, target_gram_BB, weights.margin)
    return terms


def stage_loss(student: Student, stage: Stage, pooled_BH: Tensor, target_BD: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum over heads and losses, and each term by name, `640/cosine` and so on, unweighted."""
    teacher_dim = target_BD.shape[1]
    target_gram_BB = target_BD @ target_BD.T
    heads = {teacher_dim: stage.teacher_head}
    if stage.short_heads:
        heads |= {int(dim): stage.short_heads for dim in student.heads if int(dim) != teacher_dim}
    total = pooled_BH.new_zeros(())
    shown = {}
    for dim, weights in heads.items():
        for name, term in head_terms(student.project(pooled_BH, dim), target_BD, target_gram_BB, weights).items():
            total = total + getattr(weights, name) * term
            shown[f"{dim}/{name}"] = term.item()
    return total, shown | {"total": total.item()}
