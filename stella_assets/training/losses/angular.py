"""Angular loss: the angle between the student's vector and the teachers', as a share of a half turn."""

from __future__ import annotations

import torch
from torch import Tensor

SINE_FLOOR = 1e-3
"""The gradient of arccos grows without bound towards equal vectors; below this sine it grows no more."""


class _Angle(torch.autograd.Function):
    """arccos, exact in value, its gradient bounded by 1 / `SINE_FLOOR`."""

    @staticmethod
    def forward(ctx, cosine_B: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        cosine_B = cosine_B.clamp(-1, 1)
        ctx.save_for_backward(cosine_B)
        return torch.arccos(cosine_B)

    @staticmethod
    def backward(ctx, gradient_B: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        (cosine_B,) = ctx.saved_tensors
        return -gradient_B / (1 - cosine_B.square()).clamp(min=0).sqrt().clamp(min=SINE_FLOOR)


def angular_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean over the batch of `arccos(s . t) / pi`.

    Unlike the cosine loss it keeps pulling where vectors are already close: its slope does not vanish there.

    Args:
        student_BD: Unit vectors, float32.
        teacher_BD: Unit vectors of the same dimensions.

    Returns:
        A scalar in [0, 1].
    """
    return _Angle.apply((student_BD * teacher_BD).sum(dim=1)).mean() / torch.pi
