"""Spread-out regulariser: the vectors of different texts are as far apart as random directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, Compared, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread


def spread_out(student_BD: Tensor) -> Tensor:
    """`M1^2 + (M2 - 1/D)`, with M1 and M2 the mean of the cosines, and of their squares, of any two texts.

    Both moments follow from products of O(D^2) memory, and no B x B matrix is made.

    Args:
        student_BD: Unit vectors, float32 or float64.

    Returns:
        A scalar, about 0 for random directions; 0 where the batch has one text.

    References:
        Zhang et al. 2017, Learning spread-out local feature descriptors, arXiv 1708.06320.
    """
    texts, dimension = student_BD.shape
    if texts < 2:
        return student_BD.sum() * 0  # not a new 0: the backward pass needs a graph
    ordered = texts * (texts - 1)
    # Sums over all B x B entries, less the diagonal, whose entries are 1.
    squares_B = student_BD.square().sum(dim=1)
    mean = (student_BD.sum(dim=0).square().sum() - squares_B.sum()) / ordered
    second = ((student_BD.T @ student_BD).square().sum() - squares_B.square().sum()) / ordered
    return mean.square() + second - 1 / dimension


@LOSSES.register
class SpreadOut(LossConfig):
    """`M1² + M2 - 1/D`: M1 and M2 are the means of the cosines of two texts, and of their squares."""

    compares: ClassVar[Compared] = "nothing"
    order: ClassVar[int] = 80
    loss: Literal["spread_out"] = Field("spread_out", exclude=True)

    def value(self, student: Tensor, teacher: Any, spread: Spread) -> Tensor:
        """See `spread_out`; vectors `[B, D]`."""
        return spread_out(student)

    def scale(self, spread: Spread) -> float:
        """1: it is compared with random directions, and not with the teachers."""
        return 1.0
