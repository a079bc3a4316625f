"""Binary cross-entropy: each candidate by itself answers the query or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import LIST_LOSSES, ListLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


def bce(score_BC: Tensor, positive_BC: Tensor, there_BC: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Mean over the candidates of `-[y log p + (1 - y) log(1 - p)]` with `p = sigmoid(f)`.

    y is 1 for what answers the query, and 0 for other candidates.

    Args:
        score_BC: Of the student.
        positive_BC: What answers the query.
        there_BC: Which entries are candidates.
        positive_weight: What the first term counts.

    Returns:
        `[B]`.
    """
    import torch

    weight = torch.tensor(positive_weight, dtype=score_BC.dtype, device=score_BC.device)
    value_BC = torch.nn.functional.binary_cross_entropy_with_logits(
        score_BC, positive_BC.to(score_BC.dtype), reduction="none", pos_weight=weight
    )
    return value_BC.masked_fill(~there_BC, 0).sum(dim=1) / there_BC.sum(dim=1)


@LIST_LOSSES.register
class Bce(ListLoss):
    """Mean over candidates of `-[y log p + (1-y) log(1-p)]`, `p = sigmoid(f)`; y is 1 for what answers the query."""

    least: ClassVar[int] = 1
    order: ClassVar[int] = 40
    loss: Literal["bce"] = Field("bce", exclude=True)
    positive_weight: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0, description="what the answers count against the negatives, of which there are more"
    )

    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """See `bce`."""
        return bce(score, batch.positive_BC, batch.there_BC, self.positive_weight)
