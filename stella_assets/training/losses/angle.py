"""AnglE: scored pairs of texts are ranked by an angle in the complex plane, which cosines near 1 do not flatten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, Compared, LossConfig
from stella_assets.training.losses.cosent import cosent

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread, Targets


def angle_similarity(first_CD: Tensor, second_CD: Tensor) -> Tensor:
    """`|Re(z) + Im(z)|` of the inner product z of two vectors, whose halves are real and imaginary parts.

    Args:
        first_CD: Unit vectors of the first text of each pair; an odd dimension gets a zero more.
        second_CD: Of the second.

    Returns:
        `[C]`.

    References:
        Li & Li 2023, AnglE, arXiv 2309.12871. The sign of the imaginary part is that of the authors' code and of
        sentence-transformers; equation 3 of the paper has the other one.
    """
    import torch

    if first_CD.shape[1] % 2:
        first_CD, second_CD = (torch.nn.functional.pad(side_CD, (0, 1)) for side_CD in (first_CD, second_CD))
    (real, imaginary), (other_real, other_imaginary) = first_CD.chunk(2, dim=1), second_CD.chunk(2, dim=1)
    cosine_C = (first_CD * second_CD).sum(dim=1)
    return (cosine_C + (imaginary * other_real - real * other_imaginary).sum(dim=1)).abs()


@LOSSES.register
class Angle(LossConfig):
    """`log(1 + Σ exp(scale (a_j - a_i)))` over scored pairs with `y_i > y_j`; a is AnglE's similarity of two texts."""

    compares: ClassVar[Compared] = "pairs"
    order: ClassVar[int] = 75
    loss: Literal["angle"] = Field("angle", exclude=True)
    scale_of_angles: Annotated[float, Field(gt=0, le=1000)] = Field(20.0, description="multiplies the similarities")

    def value(self, student: Tensor, teacher: Any, spread: Spread) -> Tensor:
        """See `angle_similarity` and `cosent`; vectors `[B, D]`, and the targets with their pairs."""
        targets: Targets = teacher
        pairs = targets.require_pairs()
        similarity_C = angle_similarity(student[pairs.first_C], student[pairs.second_C])
        return cosent(similarity_C, pairs.score_C, self.scale_of_angles)

    def scale(self, spread: Spread) -> float:
        """1: a logarithm has no unit."""
        return 1.0
