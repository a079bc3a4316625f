"""Cosine loss: each student vector points where its teacher vector does."""

from __future__ import annotations

from torch import Tensor


def cosine_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean over the batch of `1 - s . t` (arXiv 2412.19048, eq. 2).

    Args:
        student_BD: Unit vectors, float32.
        teacher_BD: Unit vectors of the same dimensions.

    Returns:
        A scalar in [0, 2].
    """
    return 1 - (student_BD * teacher_BD).sum(dim=1).mean()
