"""Cosine loss: each student vector points where its teacher vector does."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread


def cosine_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean over the batch of `1 - s . t`.

    Args:
        student_BD: Unit vectors, float32.
        teacher_BD: Unit vectors of the same dimensions.

    Returns:
        A scalar in [0, 2].

    References:
        Zhang et al. 2024, Jasper and Stella, arXiv 2412.19048, eq. 1.

    Example:
        >>> cosine_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(1.)
    """
    # Both are of unit norm already, so a plain product: `cosine_similarity` would compute the norms once more.
    return 1 - (student_BD * teacher_BD).sum(dim=1).mean()


@LOSSES.register
class Cosine(LossConfig):
    """Mean of `1 - s.t`. Needs equal dimensions."""

    order: ClassVar[int] = 10
    loss: Literal["cosine"] = Field("cosine", exclude=True)

    def value(self, student: Tensor, teacher: Tensor, spread: Spread) -> Tensor:
        """See `cosine_loss`; vectors `[B, D]`."""
        return cosine_loss(student, teacher)

    def scale(self, spread: Spread) -> float:
        """The cosine distance of the best constant answer."""
        return spread.distance
