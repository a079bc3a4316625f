"""LambdaLoss: pairs in the wrong order count as much as they cost in nDCG (NDCG-Loss2++)."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import LIST_LOSSES
from stella_assets.training.retriever_losses.ranked import RankedLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


def lambda_loss(score_BC: Tensor, grade_BC: Tensor, there_BC: Tensor, mu: float = 10.0) -> Tensor:
    """Mean over the pairs of candidates with `y_i > y_j` of `-w_ij log2 sigmoid(f_i - f_j)`.

    `w_ij = (μ |1/D_|i-j| - 1/D_|i-j|+1| + |1/D_i - 1/D_j|) |G_i - G_j|` at the ranks that the student gives, with
    `D_i = log2(1 + i)` and `G = (2^y - 1) / DCG of the best order`.

    Args:
        score_BC: Of the student.
        grade_BC: y, at least 0.
        there_BC: Which entries are candidates.
        mu: What the first term of the weight counts.

    Returns:
        `[B]`, 0 for a list whose candidates all have one grade.

    References:
        Wang et al. 2018, The LambdaLoss Framework for Ranking Metric Optimization.
    """
    import torch
    from sentence_transformers.cross_encoder.losses.lambda_loss import NDCGLoss2PPScheme

    least = torch.finfo(score_BC.dtype).min / 4
    sorted_BC, order_BC = score_BC.masked_fill(~there_BC, least).sort(dim=1, descending=True, stable=True)
    grade_BC = grade_BC.to(score_BC.dtype).masked_fill(~there_BC, 0)
    rank_C = torch.arange(1, score_BC.shape[1] + 1, device=score_BC.device, dtype=score_BC.dtype)
    discount_1C = (1 + rank_C).log2()[None]
    best_B = ((2 ** grade_BC.sort(dim=1, descending=True).values - 1) / discount_1C).sum(dim=1)
    ranked_BC, there_BC = grade_BC.gather(1, order_BC), there_BC.gather(1, order_BC)
    gain_BC = (2**ranked_BC - 1) / best_B.clamp(min=torch.finfo(best_B.dtype).tiny)[:, None]
    weight_BCC = NDCGLoss2PPScheme(mu)(gain_BC, discount_1C, ranked_BC)
    ordered_BCC = (ranked_BC[:, :, None] > ranked_BC[:, None, :]) & there_BC[:, :, None] & there_BC[:, None, :]
    logistic_BCC = torch.nn.functional.softplus(sorted_BC[:, None, :] - sorted_BC[:, :, None]) / log(2)
    value_BCC = (weight_BCC * logistic_BCC).masked_fill(~ordered_BCC, 0)
    return value_BCC.sum(dim=(1, 2)) / ordered_BCC.sum(dim=(1, 2)).clamp(min=1)


@LIST_LOSSES.register
class LambdaLoss(RankedLoss):
    """NDCG-Loss2++: mean over pairs of candidates, of which i is the better one, of `-w_ij log2 sigmoid(f_i - f_j)`.

    w_ij grows with what swapping the two would change in nDCG, at the ranks that the student gives.
    """

    order: ClassVar[int] = 90
    loss: Literal["lambda"] = Field("lambda", exclude=True)
    mu: Annotated[float, Field(ge=0, le=1000)] = Field(10.0, description="weight of the bound of nDCG in `w_ij`")
    grades: Annotated[float, Field(gt=0, le=30)] = Field(
        3.0, description="grade of the teacher's best candidate of a list; its worst has 0, others lie between by score"
    )

    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """See `lambda_loss`."""
        relevance_BC = self.relevance(batch)
        if self.learns_scores:
            low_B1 = relevance_BC.masked_fill(~batch.there_BC, float("inf")).amin(dim=1, keepdim=True)
            high_B1 = relevance_BC.masked_fill(~batch.there_BC, float("-inf")).amax(dim=1, keepdim=True)
            # Lists whose scores are all equal were dropped.
            relevance_BC = self.grades * (relevance_BC - low_B1) / (high_B1 - low_B1)
        return lambda_loss(score, relevance_BC, batch.there_BC, self.mu)
