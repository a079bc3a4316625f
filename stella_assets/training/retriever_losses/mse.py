"""Mean squared error: the student gives each candidate the teacher's score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import LIST_LOSSES, ListLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


def score_mse(student_BC: Tensor, teacher_BC: Tensor, there_BC: Tensor) -> Tensor:
    """Mean over the candidates of `(f(q, d) - t(q, d))²`.

    Args:
        student_BC: Scores.
        teacher_BC: Those of the teacher; takes no gradient.
        there_BC: Which entries are candidates.

    Returns:
        `[B]`.
    """
    square_BC = (student_BC - teacher_BC.to(student_BC.dtype)).square().masked_fill(~there_BC, 0)
    return square_BC.sum(dim=1) / there_BC.sum(dim=1)


@LIST_LOSSES.register
class ScoreMse(ListLoss):
    """Mean over candidates of `(f(q,d) - t(q,d))²`, f of the student and t of the teacher."""

    least: ClassVar[int] = 1
    order: ClassVar[int] = 50
    loss: Literal["mse"] = Field("mse", exclude=True)
    scale: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        1.0,
        description="the teacher's scores less their mean, so that one standard deviation within a list is this much; "
        "`null` takes the scores as they are, e.g. logits",
    )

    @property
    def learns_scores(self) -> bool:
        """See `ListLoss.learns_scores`."""
        return True

    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """See `score_mse`."""
        scale = self.scale
        teacher_BC = batch.score_BC
        if scale is not None:
            teacher_BC = (teacher_BC - batch.center) / batch.deviation * scale
        return score_mse(score, teacher_BC, batch.there_BC)
