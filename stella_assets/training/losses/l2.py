"""L2 loss: the distance between the student's vector and the teachers'."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread


def l2_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean over the batch of the Euclidean distance `‖s - t‖`.

    For unit vectors it is the square root of twice the cosine distance, so texts that are far off weigh less than they
    do in the cosine loss.

    Args:
        student_BD: Unit vectors, float32.
        teacher_BD: Unit vectors of the same dimensions.

    Returns:
        A scalar in [0, 2].

    References:
        LEAF, arXiv 2509.12539, whose only loss it is.

    Example:
        >>> l2_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(1.4142)
    """
    import torch

    # `vector_norm` has gradient 0 at distance 0; the square root of a sum of squares would have NaN there.
    return torch.linalg.vector_norm(student_BD - teacher_BD, dim=1).mean()


@LOSSES.register
class L2(LossConfig):
    """Mean of `‖s - t‖`. Needs equal dimensions."""

    order: ClassVar[int] = 20
    loss: Literal["l2"] = Field("l2", exclude=True)

    def value(self, student: Tensor, teacher: Tensor, spread: Spread) -> Tensor:
        """See `l2_loss`; vectors `[B, D]`."""
        return l2_loss(student, teacher)

    def scale(self, spread: Spread) -> float:
        """The cosine distance of the best constant answer."""
        return spread.distance
