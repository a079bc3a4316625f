"""MarginMSE: the student puts each negative as far below the positive as the teacher does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import LIST_LOSSES, ListLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


def margin_mse(student_BC: Tensor, teacher_BC: Tensor, there_BC: Tensor) -> Tensor:
    """Mean over the negatives of `((f(q, d+) - f(q, d)) - (t(q, d+) - t(q, d)))²`.

    Args:
        student_BC: Scores; the positive comes first.
        teacher_BC: Those of the teacher; takes no gradient.
        there_BC: Which entries are candidates.

    Returns:
        `[B]`, 0 for a list without negatives.

    References:
        Hofstätter et al. 2020, arXiv 2010.02666.
    """
    difference_BC = student_BC - teacher_BC.to(student_BC.dtype)
    square_BN = (difference_BC[:, :1] - difference_BC[:, 1:]).square().masked_fill(~there_BC[:, 1:], 0)
    return square_BN.sum(dim=1) / there_BC[:, 1:].sum(dim=1).clamp(min=1)


@LIST_LOSSES.register
class MarginMse(ListLoss):
    """Mean over negatives of `((f(q,d+) - f(q,d)) - (t(q,d+) - t(q,d)))²`, f of the student and t of the teacher."""

    order: ClassVar[int] = 20
    loss: Literal["margin_mse"] = Field("margin_mse", exclude=True)
    scale: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        1.0,
        description="what one standard deviation of the teacher's scores within a list is to be in the student's; "
        "`null` takes the scores as they are",
    )

    @property
    def learns_scores(self) -> bool:
        """See `ListLoss.learns_scores`."""
        return True

    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """See `margin_mse`."""
        teacher_BC = batch.score_BC if self.scale is None else batch.scaled_scores() * self.scale
        return margin_mse(score, teacher_BC, batch.there_BC)
