"""Soft labels: a query's documents are as probable for the student as for the teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, Compared, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.pairs import BatchPairs
    from stella_assets.training.targets import Spread, Targets


def soft_kl(student_BD: Tensor, teacher_BB: Tensor, pairs: BatchPairs, temperature: float) -> Tensor:
    """Mean over queries of `KL(softmax(t(q, d) / tau) || softmax(s(q, d) / tau))` over the documents of the batch.

    Documents are what answers a query of the batch, and the negatives of its queries; a query is no document of its
    own. What answers a query, and how well, is for the teachers to say: nothing is masked. Their cosines are those of
    stored vectors, so no model runs.

    Args:
        student_BD: Unit vectors of the texts of the batch.
        teacher_BB: Cosines of the teachers' vectors; takes no gradient.
        pairs: Which texts are queries and which are documents.
        temperature: tau.

    Returns:
        A scalar; 0 where the batch has no pairs.

    References:
        Zhang et al. 2025, Jasper-Token-Compression-600M, arXiv 2511.14405.
    """
    import torch

    if not len(pairs.query_P):
        return student_BD.sum() * 0  # not a new 0: the backward pass needs a graph
    query_Q = pairs.query_P.unique()
    negatives = pairs.negative_BB[query_Q].any(dim=0).nonzero()[:, 0]
    document_U = torch.cat([pairs.positive_P, negatives]).unique()
    itself_QU = document_U[None, :] == query_Q[:, None]
    with torch.autocast(student_BD.device.type, enabled=False):
        student_QU = student_BD[query_Q] @ student_BD[document_U].T / temperature
        teacher_QU = teacher_BB[query_Q][:, document_U].to(student_BD.dtype) / temperature
        ours_QU, theirs_QU = (
            torch.log_softmax(logits_QU.masked_fill(itself_QU, -torch.inf), dim=1)
            for logits_QU in (student_QU, teacher_QU)
        )
        # 0 times minus infinity is not a number, nor is its gradient: a query itself is left out before the product.
        ratio_QU = (theirs_QU - ours_QU).masked_fill(itself_QU, 0)
        return (theirs_QU.exp() * ratio_QU).sum(dim=1).mean()


@LOSSES.register
class SoftKl(LossConfig):
    """Mean over queries of `KL(softmax(t(q,d)/τ) ‖ softmax(s(q,d)/τ))` over the documents of the batch."""

    compares: ClassVar[Compared] = "pairs"
    order: ClassVar[int] = 65
    loss: Literal["soft_kl"] = Field("soft_kl", exclude=True)
    temperature: Annotated[float, Field(gt=0, le=10)] = Field(0.05, description="divides both sides' cosines")

    def value(self, student: Tensor, teacher: Any, spread: Spread) -> Tensor:
        """See `soft_kl`; vectors `[B, D]`, and the targets with their pairs."""
        targets: Targets = teacher
        return soft_kl(student, targets.gram, targets.require_pairs(), self.temperature)

    def scale(self, spread: Spread) -> float:
        """1: a divergence has no unit."""
        return 1.0
