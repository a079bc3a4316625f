"""What losses share that put the candidates of a query in an order: by a teacher's scores, or by what answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import ListLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


class RankedLoss(ListLoss):
    """A loss that learns an order."""

    target: Literal["scores", "labels"] = Field(
        "scores",
        description="`scores`: the order of the teacher's scores; `labels`: what answers the query before all others",
    )

    @property
    def learns_scores(self) -> bool:
        """See `ListLoss.learns_scores`."""
        return self.target == "scores"

    def relevance(self, batch: ListBatch) -> Tensor:
        """What candidates are ordered by, `[B, C]` float32: scores, or 1 for what answers the query and else 0."""
        return batch.score_BC if self.learns_scores else batch.positive_BC.to(batch.score_BC.dtype)
