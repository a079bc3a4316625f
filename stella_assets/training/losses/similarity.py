"""Similarity loss: any two texts are as similar for the student as for the teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, Compared, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread


def similarity_loss(student_gram_BB: Tensor, teacher_gram_BB: Tensor) -> Tensor:
    """Mean squared error of the two Gram matrices, over all B x B entries.

    Args:
        student_gram_BB: Cosines of the student's vectors, float32.
        teacher_gram_BB: Cosines of the teachers' vectors.

    Returns:
        A scalar, in squared cosine units.

    References:
        Zhang et al. 2024, Jasper and Stella, arXiv 2412.19048, eq. 2.

    Example:
        >>> similarity_loss(torch.eye(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
        tensor(0.1250)
    """
    # The diagonals, 1 in both, add nothing but count in the mean, as in the published form.
    return (student_gram_BB - teacher_gram_BB).square().mean()


@LOSSES.register
class Similarity(LossConfig):
    """Mean of `(G - H)²`."""

    compares: ClassVar[Compared] = "similarities"
    order: ClassVar[int] = 40
    loss: Literal["similarity"] = Field("similarity", exclude=True)

    def value(self, student: Tensor, teacher: Tensor, spread: Spread) -> Tensor:
        """See `similarity_loss`; cosines `[B, B]`."""
        return similarity_loss(student, teacher)

    def scale(self, spread: Spread) -> float:
        """The variance of the teachers' cosines."""
        return spread.deviation**2
