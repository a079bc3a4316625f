"""MSE loss: the squared difference of the student's vector and the teachers', entry by entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread


def mse_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean over the batch and the dimensions of `(s - t)²`.

    For unit vectors it is the cosine loss times `2 / D`, so its weight has to grow with the dimensions to count.

    Args:
        student_BD: Unit vectors, float32.
        teacher_BD: Unit vectors of the same dimensions.

    Returns:
        A scalar in [0, 4 / D].

    References:
        NVIDIA, Nemotron-3-Embed-1B, whose published recipe adds it to the cosine loss, both with weight 1.

    Example:
        >>> mse_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(1.)
    """
    # The mean over both axes, as `torch.nn.MSELoss` has it, not a sum over dimensions.
    return (student_BD - teacher_BD).square().mean()


@LOSSES.register
class Mse(LossConfig):
    """Mean of `(s - t)²` over the batch and the dimensions. Needs equal dimensions."""

    loss: Literal["mse"] = Field("mse", exclude=True)

    def value(self, student: Tensor, teacher: Tensor, spread: Spread) -> Tensor:
        """See `mse_loss`; vectors `[B, D]`."""
        return mse_loss(student, teacher)

    def scale(self, spread: Spread) -> float:
        """The cosine distance of the best constant answer."""
        return spread.distance
