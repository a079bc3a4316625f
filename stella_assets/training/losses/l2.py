"""L2 loss: the distance between the student's vector and the teachers'."""

from __future__ import annotations

import torch
from torch import Tensor


def l2_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean over the batch of the Euclidean distance (after LEAF, arXiv 2509.12539, whose only loss it is).

    For unit vectors it is the square root of twice the cosine distance, so texts that are far off weigh less than they
    do in the cosine loss.

    Args:
        student_BD: Unit vectors, float32.
        teacher_BD: Unit vectors of the same dimensions.

    Returns:
        A scalar in [0, 2].
    """
    return torch.linalg.vector_norm(student_BD - teacher_BD, dim=1).mean()
