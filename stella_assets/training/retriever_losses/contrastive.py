"""Contrastive loss: of all documents of a batch, the query scores highest with what answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from stella_assets.training.retriever_losses.base import LIST_LOSSES, ListLoss

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


def contrastive_loss(score_BM: Tensor, own_B: Tensor, answers_BM: Tensor) -> Tensor:
    """`-log exp(f(q, d+)) / sum over d of exp(f(q, d))`.

    The sum is over all documents of the batch but further ones that are known to answer the query.

    Args:
        score_BM: Of each query with each document, divided by the temperature.
        own_B: Place of what answers the query.
        answers_BM: Which documents are known to answer the query.

    Returns:
        `[B]`.

    References:
        van den Oord et al. 2018, arXiv 1807.03748. For late interaction: Khattab and Zaharia 2020, arXiv 2004.12832.
    """
    import torch

    others_BM = answers_BM.scatter(1, own_B[:, None], value=False)
    logits_BM = score_BM.masked_fill(others_BM, -torch.inf)
    return torch.nn.functional.cross_entropy(logits_BM, own_B, reduction="none")


@LIST_LOSSES.register
class Contrastive(ListLoss):
    """`-log exp(f(q,d+)/τ) / Σ_d exp(f(q,d)/τ)` over all documents of the batch that are not known to answer q."""

    reads: ClassVar[Literal["list", "batch"]] = "batch"
    least: ClassVar[int] = 1
    order: ClassVar[int] = 30
    loss: Literal["contrastive"] = Field("contrastive", exclude=True)
    temperature: Annotated[float, Field(gt=0, le=1000)] = Field(1.0, description="divides the scores")

    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """See `contrastive_loss`."""
        return contrastive_loss(score / self.temperature, batch.place_BC[:, 0], batch.answers_BM)
