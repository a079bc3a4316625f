"""Similarity loss: any two texts are as alike for the student as for the teacher."""

from __future__ import annotations

from torch import Tensor


def similarity_loss(student_gram_BB: Tensor, teacher_gram_BB: Tensor) -> Tensor:
    """Mean squared error of the two Gram matrices, over all B x B entries (arXiv 2412.19048, eq. 3).

    Args:
        student_gram_BB: Cosines of the student's vectors, float32.
        teacher_gram_BB: Cosines of the teacher's vectors.

    Returns:
        A scalar, in squared cosine units.
    """
    return (student_gram_BB - teacher_gram_BB).square().mean()
