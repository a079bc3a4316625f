"""Angular loss: the angle between the student's vector and the teachers', as a share of a half turn."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread

SINE_FLOOR = 1e-3
"""The gradient of arccos grows without bound towards equal vectors; below this sine it grows no more."""


def angular_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean over the batch of `arccos(s . t) / pi`.

    Unlike the cosine loss it keeps a gradient where vectors are already close: its slope does not vanish there.

    Args:
        student_BD: Unit vectors, float32.
        teacher_BD: Unit vectors of the same dimensions.

    Returns:
        A scalar in [0, 1].

    References:
        AnglE, arXiv 2309.12871, on why the gradient of a cosine vanishes; the form here is this project's own.

    Example:
        >>> angular_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(0.5000)
    """
    import torch

    return _angle()((student_BD * teacher_BD).sum(dim=1)).mean() / torch.pi


@cache
def _angle() -> Any:
    """arccos as a function of tensors, exact in value, its gradient bounded by 1 / `SINE_FLOOR`.

    The class is made here and not in the module, which is imported without torch. `Any`: torch types `apply` so.
    """
    import torch

    class BoundedAngle(torch.autograd.Function):
        # Not `torch.arccos` of a clamped cosine: clamping away from 1 changes the value and cuts the gradient to 0.
        @staticmethod
        def forward(ctx: Any, cosine_B: Tensor) -> Tensor:
            # Rounding gives the product of two unit vectors a little more than 1, where arccos is NaN.
            cosine_B = cosine_B.clamp(-1, 1)
            ctx.save_for_backward(cosine_B)
            return torch.arccos(cosine_B)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            (cosine_B,) = ctx.saved_tensors
            # d arccos(c) / dc = -1 / sqrt(1 - c^2), and sqrt(1 - c^2) is the sine of the angle.
            return -gradients[0] / (1 - cosine_B.square()).clamp(min=0).sqrt().clamp(min=SINE_FLOOR)

    return BoundedAngle.apply


@LOSSES.register
class Angular(LossConfig):
    """Mean of `arccos(s.t) / π`. Needs equal dimensions."""

    order: ClassVar[int] = 30
    loss: Literal["angular"] = Field("angular", exclude=True)

    def value(self, student: Tensor, teacher: Tensor, spread: Spread) -> Tensor:
        """See `angular_loss`; vectors `[B, D]`."""
        return angular_loss(student, teacher)

    def scale(self, spread: Spread) -> float:
        """The cosine distance of the best constant answer."""
        return spread.distance
