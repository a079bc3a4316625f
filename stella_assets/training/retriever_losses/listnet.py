"""ListNet: the student's best candidate is drawn as the teacher draws it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import LIST_LOSSES
from stella_assets.training.retriever_losses.kl import Temperature
from stella_assets.training.retriever_losses.ranked import RankedLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


def listnet(score_BC: Tensor, chance_BC: Tensor, there_BC: Tensor) -> Tensor:
    """`-sum over d of p(d) log softmax(f)(d)`.

    Args:
        score_BC: Of the student.
        chance_BC: p, whose rows sum to 1; takes no gradient.
        there_BC: Which entries are candidates.

    Returns:
        `[B]`.

    References:
        Cao et al. 2007, Learning to Rank: From Pairwise Approach to Listwise Approach.
    """
    import torch

    # Not minus infinity: its product with a probability of 0 is not a number.
    least = torch.finfo(score_BC.dtype).min / 2
    log_q_BC = score_BC.masked_fill(~there_BC, least).log_softmax(dim=1)
    return -(chance_BC.to(score_BC.dtype) * log_q_BC).masked_fill(~there_BC, 0).sum(dim=1)


@LIST_LOSSES.register
class ListNet(RankedLoss):
    """`-Σ_d p(d) log softmax(f)(d)`: p is the softmax of the teacher's scores, or even over what answers the query."""

    order: ClassVar[int] = 70
    loss: Literal["listnet"] = Field("listnet", exclude=True)
    temperature: Temperature = Field(
        1.0, description="divides the teacher's scores, counted in their standard deviation within a list"
    )

    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """See `listnet`."""
        if self.learns_scores:
            teacher_BC = batch.scaled_scores() / self.temperature
            chance_BC = teacher_BC.masked_fill(~batch.there_BC, float("-inf")).softmax(dim=1)
        else:
            relevance_BC = self.relevance(batch)
            chance_BC = relevance_BC / relevance_BC.sum(dim=1, keepdim=True)
        return listnet(score, chance_BC, batch.there_BC)
