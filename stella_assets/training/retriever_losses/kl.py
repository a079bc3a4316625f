"""KL divergence: the student spreads its scores over the candidates as the teacher does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import LIST_LOSSES, ListLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch

Temperature = Annotated[float, Field(gt=0, le=1000)]


def kl_divergence(student_BC: Tensor, teacher_BC: Tensor, there_BC: Tensor) -> Tensor:
    """`sum over d of p(d) (log p(d) - log q(d))`, p and q being the softmax of the teacher's and the student's scores.

    Args:
        student_BC: Scores, divided by their temperature.
        teacher_BC: The same of the teacher; takes no gradient.
        there_BC: Which entries are candidates.

    Returns:
        `[B]`, at least 0.

    References:
        Hinton et al. 2015, arXiv 1503.02531. For late interaction: Lin et al. 2020, arXiv 2010.11386.
    """
    import torch

    # Not minus infinity: its product with a probability of 0 is not a number, nor is the gradient.
    least = torch.finfo(student_BC.dtype).min / 2
    log_q_BC = student_BC.masked_fill(~there_BC, least).log_softmax(dim=1)
    log_p_BC = teacher_BC.to(student_BC.dtype).masked_fill(~there_BC, least).log_softmax(dim=1)
    return (log_p_BC.exp() * (log_p_BC - log_q_BC)).masked_fill(~there_BC, 0).sum(dim=1)


@LIST_LOSSES.register
class Kl(ListLoss):
    """`Σ_d p(d) (log p(d) - log q(d))` over the candidates of a query: p of the teacher's scores, q of the student's.

    p and q are the softmax of the scores, divided by their temperature. The teacher's are divided by their spread
    within lists first, so that one temperature suits teachers of any scale.
    """

    order: ClassVar[int] = 10
    loss: Literal["kl"] = Field("kl", exclude=True)
    student_temperature: Temperature = Field(1.0, description="divides the student's scores")
    teacher_temperature: Temperature = Field(
        1.0, description="divides the teacher's scores, counted in their standard deviation within a list"
    )

    @property
    def learns_scores(self) -> bool:
        """See `ListLoss.learns_scores`."""
        return True

    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """See `kl_divergence`."""
        teacher_BC = batch.scaled_scores() / self.teacher_temperature
        return kl_divergence(score / self.student_temperature, teacher_BC, batch.there_BC)
