"""RankNet: of two candidates the better one scores higher."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import LIST_LOSSES
from stella_assets.training.retriever_losses.ranked import RankedLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


def ranknet(score_BC: Tensor, relevance_BC: Tensor, there_BC: Tensor) -> Tensor:
    """Mean over the pairs of candidates with `y_i > y_j` of `log(1 + exp(f_j - f_i))`.

    Args:
        score_BC: Of the student.
        relevance_BC: y.
        there_BC: Which entries are candidates.

    Returns:
        `[B]`, 0 for a list whose candidates are all equally relevant.

    References:
        Burges et al. 2005, Learning to Rank using Gradient Descent.
    """
    import torch

    ordered_BCC = relevance_BC[:, :, None] > relevance_BC[:, None, :]
    ordered_BCC = ordered_BCC & there_BC[:, :, None] & there_BC[:, None, :]
    value_BCC = torch.nn.functional.softplus(score_BC[:, None, :] - score_BC[:, :, None])
    return value_BCC.masked_fill(~ordered_BCC, 0).sum(dim=(1, 2)) / ordered_BCC.sum(dim=(1, 2)).clamp(min=1)


@LIST_LOSSES.register
class RankNet(RankedLoss):
    """Mean over pairs of candidates, of which i is the better one, of `log(1 + exp(f_j - f_i))`."""

    order: ClassVar[int] = 60
    loss: Literal["ranknet"] = Field("ranknet", exclude=True)

    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """See `ranknet`."""
        return ranknet(score, self.relevance(batch), batch.there_BC)
