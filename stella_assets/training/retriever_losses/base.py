"""What every loss of a retriever has: a weight, which scores it reads, and a value for each list."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stella_assets.core.config import ConfigModel, Weight
from stella_assets.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.retrievers.lists import ListBatch


class ListLoss(ConfigModel):
    """Settings that all losses of retrievers share. A loss adds its own, and the literal field `loss`, its name.

    Attributes:
        reads: `list`: the scores of a query's own candidates, `[B, C]`; or `batch`: those of all documents of the
            batch, `[B, M]`, which only a retriever with vectors of single texts can afford.
        least: Candidates that a list needs at least.
        order: Terms are summed by it, then by name: the last bits of a sum depend on the order.

    Example:
        A file `stella_assets/training/retriever_losses/hinge.py`, and nothing else, adds the loss `hinge`:

        >>> @LIST_LOSSES.register
        ... class Hinge(ListLoss):
        ...     '''Sum of `max(0, 1 - f(q, d+) + f(q, d))` over the negatives of a list.'''
        ...     loss: Literal["hinge"] = Field("hinge", exclude=True)
        ...     def value(self, score, batch):
        ...         negative_BC = batch.there_BC & ~batch.positive_BC
        ...         return ((1 - score[:, :1] + score).clamp(min=0) * negative_BC).sum(dim=1)
    """

    # Class variables, not fields: a recipe cannot set them, and they do not enter the identity of a step.
    reads: ClassVar[Literal["list", "batch"]] = "list"
    least: ClassVar[int] = 2
    order: ClassVar[int] = 100

    # The name is the key in the recipe already; excluded, so that a loss is written as its weight alone.
    loss: str = Field(exclude=True)
    weight: Weight = Field(description="what its value counts in the sum that is minimised")

    @property
    def learns_scores(self) -> bool:
        """Whether it learns from the scores of `pair_scores`, and not from what is known to answer a query alone."""
        return False

    @abstractmethod
    def value(self, score: Tensor, batch: ListBatch) -> Tensor:
        """The loss of each list, without its weight.

        It depends on no other list of the batch than through `[B, M]`, so that batches can be cut into parts.

        Args:
            score: Of the student, `[B, C]` or `[B, M]` as `reads` says. Entries of `[B, C]` that stand for no candidate
                have any value.
            batch: Which candidates there are, which of them answer the query, and their scores.

        Returns:
            `[B]`.
        """


LIST_LOSSES: Registry[ListLoss] = Registry("retriever loss", key="loss")
