"""InfoNCE: of all texts of a batch, a query is nearest to what answers it, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.training.losses.base import LOSSES, Compared, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.pairs import BatchPairs
    from stella_assets.training.targets import Spread, Targets

Direction = Literal["query_to_document", "document_to_query"]
BOTH: tuple[Direction, ...] = ("query_to_document", "document_to_query")


def info_nce(
    student_BD: Tensor,
    teacher_BB: Tensor,
    pairs: BatchPairs,
    temperature: float,
    false_negative_ratio: float | None,
    directions: tuple[Direction, ...] = BOTH,
) -> Tensor:
    """Mean over pairs and directions of `-log exp(s(q, d+) / tau) / sum over d of exp(s(q, d) / tau)`.

    The sum is over all documents of the batch, or over all queries in the other direction. Left out are texts that are
    known to answer the query, the query itself, and false negatives: texts d with `t(q, d) >= r t(q, d+)` for the
    teachers, unless the source says that d does not answer q.

    Args:
        student_BD: Unit vectors of the texts of the batch.
        teacher_BB: Cosines of the teachers' vectors; takes no gradient.
        pairs: Which texts belong together.
        temperature: tau.
        false_negative_ratio: r; None for no masking.
        directions: What is compared with what.

    Returns:
        A scalar; 0 where the batch has no pairs.

    References:
        van den Oord et al. 2018, arXiv 1807.03748. Positive-aware filter: Moreira et al. 2024, NV-Retriever, arXiv
        2407.15831. In-batch masking by a guide: Solatorio 2024, GISTEmbed, arXiv 2402.16829.
    """
    import torch

    from stella_assets.teachers.nearest_below import positive_aware_bound

    query_P, positive_P = pairs.query_P, pairs.positive_P
    if not len(query_P):
        return student_BD.sum() * 0  # not a new 0: the backward pass needs a graph
    negatives = pairs.negative_BB[query_P].any(dim=0).nonzero()[:, 0]
    ends = {
        "query_to_document": (query_P, positive_P, torch.cat([positive_P, negatives]), False),
        "document_to_query": (positive_P, query_P, query_P, True),
    }
    own_P = teacher_BB[query_P, positive_P]
    bound_P = None if false_negative_ratio is None else positive_aware_bound(own_P, false_negative_ratio)
    values = []
    for direction in directions:
        anchor_P, right_P, others, transposed = ends[direction]
        candidates_U, at = torch.unique(torch.cat([right_P, others]), return_inverse=True)
        label_P = at[: len(right_P)]
        answers_BB = pairs.answers_BB.T if transposed else pairs.answers_BB
        negative_BB = pairs.negative_BB.T if transposed else pairs.negative_BB
        out_PU = answers_BB[anchor_P][:, candidates_U] | (candidates_U[None, :] == anchor_P[:, None])
        if bound_P is not None:
            false_PU = teacher_BB[anchor_P][:, candidates_U] >= bound_P[:, None]
            out_PU |= false_PU & ~negative_BB[anchor_P][:, candidates_U]
        out_PU[torch.arange(len(label_P), device=out_PU.device), label_P] = False
        with torch.autocast(student_BD.device.type, enabled=False):
            logits_PU = student_BD[anchor_P] @ student_BD[candidates_U].T / temperature
        values.append(torch.nn.functional.cross_entropy(logits_PU.masked_fill(out_PU, -torch.inf), label_P))
    return torch.stack(values).mean()


@LOSSES.register
class InfoNce(LossConfig):
    """Mean of `-log exp(s(q,d+)/τ) / Σ_d exp(s(q,d)/τ)` over pairs, in both directions; false negatives are masked."""

    compares: ClassVar[Compared] = "pairs"
    order: ClassVar[int] = 60
    loss: Literal["info_nce"] = Field("info_nce", exclude=True)
    temperature: Annotated[float, Field(gt=0, le=10)] = Field(0.05, description="divides the cosines")
    false_negative_ratio: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.95,
        description="a text is no negative of a query from this share of the positive's cosine on, by the teachers; "
        "`null` masks nothing",
    )
    directions: tuple[Direction, ...] = Field(BOTH, min_length=1, description="what is compared with what")

    def value(self, student: Tensor, teacher: Any, spread: Spread) -> Tensor:
        """See `info_nce`; vectors `[B, D]`, and the targets with their pairs."""
        targets: Targets = teacher
        pairs = targets.require_pairs()
        return info_nce(student, targets.gram, pairs, self.temperature, self.false_negative_ratio, self.directions)

    def scale(self, spread: Spread) -> float:
        """1: a logarithm of a probability has no unit."""
        return 1.0
