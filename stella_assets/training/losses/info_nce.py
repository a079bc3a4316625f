"""InfoNCE: of all texts of a batch, a query is nearest to what answers it, and the other way round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from stella_assets.training.losses.base import LOSSES, Compared, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.pairs import BatchPairs
    from stella_assets.training.targets import Spread, Targets

Direction = Literal["query_to_document", "document_to_query", "query_to_query", "document_to_document"]
BOTH: tuple[Direction, ...] = ("query_to_document", "document_to_query")
ONE_SIDED: frozenset[Direction] = frozenset({"query_to_query", "document_to_document"})


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

    `query_to_query` and `document_to_document` compare texts of one side, without those that share an answer or a
    query. They have no positive of their own: with one of them, all directions are one sum, as for GTE.

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
        van den Oord et al. 2018, arXiv 1807.03748. One sum over directions: Li et al. 2023, GTE, arXiv 2308.03281.
        Positive-aware filter: Moreira et al. 2024, NV-Retriever, arXiv 2407.15831. In-batch masking by a guide:
        Solatorio 2024, GISTEmbed, arXiv 2402.16829.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from stella_assets.teachers.nearest_below import positive_aware_bound

    query_P, positive_P = pairs.query_P, pairs.positive_P
    if not len(query_P):
        return student_BD.sum() * 0  # not a new 0: the backward pass needs a graph
    own_P = teacher_BB[query_P, positive_P]
    bound_P = None if false_negative_ratio is None else positive_aware_bound(own_P, false_negative_ratio)
    values, logits = [], []
    for compared in (_compared(pairs, direction) for direction in directions):
        anchor_P, candidates_U = compared.anchor_P, compared.candidates_U
        out_PU = compared.known_PU | (candidates_U[None, :] == anchor_P[:, None])
        if bound_P is not None:
            false_PU = teacher_BB[anchor_P][:, candidates_U] >= bound_P[:, None]
            out_PU |= false_PU & ~compared.stated_PU
        if compared.label_P is not None:
            out_PU[torch.arange(len(query_P), device=out_PU.device), compared.label_P] = False
        with torch.autocast(student_BD.device.type, enabled=False):
            logits_PU = student_BD[anchor_P] @ student_BD[candidates_U].T / temperature
        logits.append(logits_PU.masked_fill(out_PU, -torch.inf))
        if compared.label_P is not None:
            values.append(cross_entropy(logits[-1], compared.label_P))
    if len(values) < len(directions):
        right_P = (student_BD[query_P] * student_BD[positive_P]).sum(dim=1) / temperature
        return (torch.cat(logits, dim=1).logsumexp(dim=1) - right_P).mean()
    return torch.stack(values).mean()


@dataclass(frozen=True)
class _Compared:
    """What the sum of a direction is over: U candidates of each of P pairs.

    Attributes:
        anchor_P: What the candidates are compared with.
        candidates_U: Positions of texts of the batch, ascending.
        label_P: Which candidate is the right one; None where none is.
        known_PU: Candidates that are not compared.
        stated_PU: Candidates that the source says to be negatives.
    """

    anchor_P: Tensor
    candidates_U: Tensor
    label_P: Tensor | None
    known_PU: Tensor
    stated_PU: Tensor


def _compared(pairs: BatchPairs, direction: Direction) -> _Compared:
    import torch

    query_P, positive_P, answers_BB = pairs.query_P, pairs.positive_P, pairs.answers_BB
    negative_PB = pairs.negative_BB[query_P]
    queries_U = query_P.unique()
    documents_U = torch.cat([positive_P, negative_PB.any(dim=0).nonzero()[:, 0]]).unique()
    match direction:
        case "query_to_document":
            label_P = torch.searchsorted(documents_U, positive_P)
            known_PU, stated_PU = answers_BB[query_P][:, documents_U], negative_PB[:, documents_U]
            return _Compared(query_P, documents_U, label_P, known_PU, stated_PU)
        case "document_to_query":
            label_P = torch.searchsorted(queries_U, query_P)
            known_PU, stated_PU = (each[queries_U][:, positive_P].T for each in (answers_BB, pairs.negative_BB))
            return _Compared(positive_P, queries_U, label_P, known_PU, stated_PU)
        case "query_to_query":
            answers_UB = answers_BB[queries_U].float()
            known_PU = answers_BB[query_P].float() @ answers_UB.T > 0
            return _Compared(query_P, queries_U, None, known_PU, torch.zeros_like(known_PU))
        case "document_to_document":
            answers_BU = answers_BB[:, documents_U].float()
            # A negative of the query is compared with the query; with what answers it, it may well share much.
            known_PU = (answers_BB[:, positive_P].float().T @ answers_BU > 0) | negative_PB[:, documents_U]
            return _Compared(positive_P, documents_U, None, known_PU, torch.zeros_like(known_PU))


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

    @field_validator("directions")
    @classmethod
    def _require_a_positive(cls, directions: tuple[Direction, ...]) -> tuple[Direction, ...]:
        if set(directions).isdisjoint(BOTH):
            raise ValueError(f"{directions[0]} has no positive of its own; add {BOTH[0]}")
        return directions

    def value(self, student: Tensor, teacher: Any, spread: Spread) -> Tensor:
        """See `info_nce`; vectors `[B, D]`, and the targets with their pairs."""
        targets: Targets = teacher
        pairs = targets.require_pairs()
        return info_nce(student, targets.gram, pairs, self.temperature, self.false_negative_ratio, self.directions)

    def scale(self, spread: Spread) -> float:
        """1: a logarithm of a probability has no unit."""
        return 1.0
