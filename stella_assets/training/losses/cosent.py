"""CoSENT: scored pairs of texts are ranked by their cosine as by their score, in O(C log C)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, Compared, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread, Targets


def cosent(cosine_C: Tensor, score_C: Tensor, scale: float) -> Tensor:
    """`log(1 + sum over all i, j with y_i > y_j of exp(scale (s_j - s_i)))`.

    The sum over j is a running log-sum-exp over the pairs in the order of their scores, up to the last one that is
    strictly lower, so no C x C matrix is made.

    Args:
        cosine_C: Cosines s of the two texts of each pair.
        score_C: Scores y.
        scale: Multiplies the cosines.

    Returns:
        A scalar, 0 with a gradient of 0 where no score is above another one.

    References:
        Su 2022, CoSENT, https://kexue.fm/archives/8847.

    Example:
        >>> cosent(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]), scale=20)
        tensor(0.6931)
    """
    import torch

    sorted_C, order_C = torch.sort(score_C, stable=True)
    logit_C = scale * cosine_C[order_C]
    # `side="left"`: equal scores are not compared.
    lower_C = torch.searchsorted(sorted_C, sorted_C)
    compared = lower_C > 0
    if not compared.any():
        return cosine_C.sum() * 0  # not a new 0: the backward pass needs a graph
    below_C = torch.logcumsumexp(logit_C, dim=0)[lower_C[compared] - 1]
    terms = torch.cat([logit_C.new_zeros(1), below_C - logit_C[compared]])
    return torch.logsumexp(terms, dim=0)


@LOSSES.register
class Cosent(LossConfig):
    """`log(1 + Σ exp(scale (s_j - s_i)))` over scored pairs with `y_i > y_j`."""

    compares: ClassVar[Compared] = "pairs"
    order: ClassVar[int] = 70
    loss: Literal["cosent"] = Field("cosent", exclude=True)
    scale_of_cosines: Annotated[float, Field(gt=0, le=1000)] = Field(20.0, description="multiplies the cosines")

    def value(self, student: Tensor, teacher: Any, spread: Spread) -> Tensor:
        """See `cosent`; vectors `[B, D]`, and the targets with their pairs."""
        targets: Targets = teacher
        pairs = targets.require_pairs()
        cosine_C = (student[pairs.first_C] * student[pairs.second_C]).sum(dim=1)
        return cosent(cosine_C, pairs.score_C, self.scale_of_cosines)

    def scale(self, spread: Spread) -> float:
        """1: a logarithm has no unit."""
        return 1.0
