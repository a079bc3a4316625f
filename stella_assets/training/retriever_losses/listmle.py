"""ListMLE: the likelihood of the teacher's order."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import LIST_LOSSES, ListLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


def listmle(score_BC: Tensor, relevance_BC: Tensor, there_BC: Tensor) -> Tensor:
    """Mean over the places i of `log(sum over k >= i of exp(f_(k))) - f_(i)`, in the order of falling relevance.

    Args:
        score_BC: Of the student.
        relevance_BC: Of equal ones the earlier candidate comes first.
        there_BC: Which entries are candidates.

    Returns:
        `[B]`.

    References:
        Xia et al. 2008, Listwise Approach to Learning to Rank: Theory and Algorithm.
    """
    import torch

    # Those that are not there come last, and add nothing to the sums of those before.
    order_BC = relevance_BC.masked_fill(~there_BC, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    least = torch.finfo(score_BC.dtype).min / 2
    sorted_BC = score_BC.masked_fill(~there_BC, least).gather(1, order_BC)
    # Reversed, so that the running sum of a place is over itself and those behind it.
    rest_BC = sorted_BC.flip(1).logcumsumexp(dim=1).flip(1)
    value_BC = (rest_BC - sorted_BC).masked_fill(~there_BC.gather(1, order_BC), 0)
    return value_BC.sum(dim=1) / there_BC.sum(dim=1)


@LIST_LOSSES.register
class ListMle(ListLoss):
    """Mean over places i of `log Σ_{k ≥ i} exp(f_(k)) - f_(i)`, where (i) is the candidate in the teacher's order."""

    order: ClassVar[int] = 80
    loss: Literal["listmle"] = Field("listmle", exclude=True)

    @property
    def learns_scores(self) -> bool:
        """See `ListLoss.learns_scores`: labels put negatives in no order."""
        return True

    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """See `listmle`."""
        return listmle(score, batch.score_BC, batch.there_BC)
