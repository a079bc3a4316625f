"""Relative similarity loss: pairs of texts are ranked by similarity as the teachers rank them, in O(P log P).

The published form compares every pair of texts with every other one, a P x P matrix: O(B^4) memory. Its sum needs only
two counts for each pair x, with teacher cosine t and student cosine s:

    worse(x)  = |{y : t_y < t_x - g and s_y > s_x - m}|   comparisons that x should win, and does not by the margin m
    better(x) = |{y : t_y - g > t_x and s_x > s_y - m}|   comparisons that x should lose, and does not by the margin m

    sum over t_x - g > t_y of max(0, s_y - s_x + m)
        = sum over x of s_x (better(x) - worse(x)) + m sum over x of worse(x)

and its derivative by s_x is `better(x) - worse(x)`. Both counts are two-dimensional dominance counts, answered for all
pairs at once by a wavelet matrix (Claude, Navarro and Ordonez, 2015) over ranks: exact integers, ties included.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.core.config import Weight
from stella_assets.training.losses.base import LOSSES, Compared, LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stella_assets.training.targets import Spread


def relative_similarity_loss(
    student_gram_BB: Tensor, teacher_gram_BB: Tensor, margin: float, min_gap: float = 0.0
) -> Tensor:
    """Mean over all pairs of pairs with `t_i.t_j > t_m.t_n + min_gap` of `max(0, s_m.s_n - s_i.s_j + margin)`.

    The mean is over all P (P - 1) / 2 comparisons; pairs that the teachers find equally similar add nothing.
    O(P log P) time and O(P) memory, value and gradient exact (0 at the hinge's kink, as `relu`). The published form has
    no `min_gap`, so that a perfect student still has a loss for teacher gaps below the margin; with `min_gap = margin`
    it has none.

    Args:
        student_gram_BB: Cosines of the student's vectors, float32 or float64.
        teacher_gram_BB: Cosines of the teachers' vectors; takes no gradient.
        margin: In units of cosine.
        min_gap: In units of cosine.

    Returns:
        A scalar, 0 if the batch has fewer than 3 texts, for there is nothing to compare.

    References:
        Zhang et al. 2024, Jasper and Stella, arXiv 2412.19048, eq. 3. Counts: Claude, Navarro and Ordóñez 2015, The
        wavelet matrix, https://doi.org/10.1016/j.is.2014.06.002.

    Example:
        >>> vectors = torch.nn.functional.normalize(torch.randn(8, 4), dim=1)
        >>> cosines = vectors @ vectors.T
        >>> relative_similarity_loss(cosines, cosines, margin=0.015, min_gap=0.015)
        tensor(0.)
    """
    import torch

    batch = len(student_gram_BB)
    if batch < 3:
        return student_gram_BB.sum() * 0  # not a new 0: the backward pass needs a graph
    # Each pair of texts once: the matrix is symmetric, and its diagonal compares texts with themselves.
    i, j = torch.triu_indices(batch, batch, offset=1, device=student_gram_BB.device)
    return _mean_ranking_hinge()(student_gram_BB[i, j], teacher_gram_BB[i, j], margin, min_gap)


@cache
def _mean_ranking_hinge() -> Any:
    """Mean hinge over all comparisons of P items, with its exact gradient, as a function of tensors.

    The class is made here and not in the module, which is imported without torch. `Any`: torch types `apply` so.
    """
    import torch

    class MeanRankingHinge(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, student_P: Tensor, teacher_P: Tensor, margin: float, min_gap: float) -> Tensor:
            comparisons = len(student_P) * (len(student_P) - 1) / 2
            worse_P, better_P = _violations(student_P, teacher_P, margin, min_gap)
            # Sums of counts reach P^2 / 2, above the 2^24 up to which float32 holds every integer.
            slope_P = (better_P - worse_P).double()
            # The gradient follows from the counts alone, so nothing of the sort or the search is kept for it.
            ctx.save_for_backward((slope_P / comparisons).to(student_P.dtype))
            total = (student_P.double() * slope_P).sum() + margin * worse_P.double().sum()
            return (total / comparisons).to(student_P.dtype)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
            (slope_P,) = ctx.saved_tensors
            return gradients[0] * slope_P, None, None, None

    return MeanRankingHinge.apply


def _violations(student_P: Tensor, teacher_P: Tensor, margin: float, min_gap: float) -> tuple[Tensor, Tensor]:
    """`worse` and `better` of the module's docstring, as integers, for each of the P items."""
    import torch

    items = len(student_P)
    teacher_sorted_P, by_teacher_P = torch.sort(teacher_P)
    student_sorted_P, by_student_P = torch.sort(student_P)
    rank_P = torch.empty_like(by_student_P)
    rank_P[by_student_P] = torch.arange(items, device=student_P.device)
    # An item of rank >= bar(x) has a student score above s_x - m.
    bar_P = torch.searchsorted(student_sorted_P, student_P - margin, right=True)

    # worse(x): among the items that the teachers rank below x by the gap, those at or above the bar of x.
    below_P = torch.searchsorted(teacher_sorted_P, teacher_P - min_gap)
    worse_P = _count_at_least(rank_P[by_teacher_P], torch.zeros_like(below_P), below_P, bar_P)

    # better(x) counts the same comparisons from the other side. The gap is taken from the winner's score in both, and
    # scores are compared by rank and bar in both, so rounding cannot count a comparison on one side only.
    above_P = torch.searchsorted(teacher_sorted_P - min_gap, teacher_P, right=True)
    end_P = torch.full_like(above_P, items)
    # x is at or above the bar of y unless bar(y) >= rank(x) + 1.
    over_bar_P = _count_at_least(bar_P[by_teacher_P], above_P, end_P, rank_P + 1)
    return worse_P, (end_P - above_P) - over_bar_P


def _count_at_least(values_N: Tensor, start_Q: Tensor, end_Q: Tensor, threshold_Q: Tensor) -> Tensor:
    """For each query, how many of `values_N[start:end]` are at least the threshold.

    A loop over about log2(N) bits of tensor operations, so it runs on a GPU without waiting for the host.

    Args:
        values_N: Integers in [0, N].
        start_Q: First position of each query.
        end_Q: Position after the last of each query.
        threshold_Q: Integers in [0, N + 1).

    Returns:
        Counts, one per query.
    """
    import torch

    # All queries go down the bits together: each level partitions the values stably by one bit, zeros first, and prefix
    # sums of the zeros map every query's range into the half that agrees with its threshold so far.
    count_Q = torch.zeros_like(start_Q)
    for bit in reversed(range((len(values_N) + 1).bit_length())):
        ones_N = (values_N >> bit) & 1
        zeros_before = torch.nn.functional.pad(torch.cumsum(1 - ones_N, dim=0), (1, 0))
        zeros = zeros_before[-1]
        start_zero_Q, end_zero_Q = zeros_before[start_Q], zeros_before[end_Q]
        start_one_Q, end_one_Q = zeros + start_Q - start_zero_Q, zeros + end_Q - end_zero_Q
        wants_one_Q = ((threshold_Q >> bit) & 1).bool()
        # Where the threshold has a 0 and a value a 1, the value is above it, whatever its lower bits.
        count_Q += torch.where(wants_one_Q, 0, end_one_Q - start_one_Q)
        start_Q = torch.where(wants_one_Q, start_one_Q, start_zero_Q)
        end_Q = torch.where(wants_one_Q, end_one_Q, end_zero_Q)
        position_N = torch.arange(len(values_N), device=values_N.device)
        moved_N = torch.where(ones_N.bool(), zeros + position_N - zeros_before[:-1], zeros_before[:-1])
        reordered_N = torch.empty_like(values_N)
        reordered_N[moved_N] = values_N
        values_N = reordered_N
    # What is left in a range agrees with the threshold in every bit, so it is equal to it.
    return count_Q + (end_Q - start_Q)


@LOSSES.register
class RelativeSimilarity(LossConfig):
    """Mean over all pairs of pairs with `H_ij > H_mn` of `max(0, G_mn - G_ij + margin)`."""

    compares: ClassVar[Compared] = "similarities"
    order: ClassVar[int] = 50
    loss: Literal["relative_similarity"] = Field("relative_similarity", exclude=True)
    margin: Weight = Field(0.015, description="by how much the student's cosines have to differ")
    margin_needs_gap: bool = Field(False, description="leave out comparisons whose teacher gap is within the margin")

    def value(self, student: Tensor, teacher: Tensor, spread: Spread) -> Tensor:
        """See `relative_similarity_loss`; cosines `[B, B]`."""
        # `Spread(1, 1)` leaves the margin in units of cosine, as published.
        margin = self.margin * spread.deviation
        return relative_similarity_loss(student, teacher, margin, margin if self.margin_needs_gap else 0.0)

    def scale(self, spread: Spread) -> float:
        """The standard deviation of the teachers' cosines."""
        return spread.deviation
