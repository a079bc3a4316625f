"""Each loss about pairs is its definition, written naively in float64."""

import math

import numpy as np
import pytest
import torch

from stella_assets.training.losses.cosent import cosent
from stella_assets.training.losses.info_nce import info_nce
from stella_assets.training.losses.spread_out import spread_out
from stella_assets.training.pairs import BatchPairs


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=random, dtype=torch.float64), dim=1)


def pairs_of(
    texts: int,
    pairs: list[tuple[int, int]],
    answers: set[tuple[int, int]] = frozenset(),  # type: ignore[assignment]
    negatives: set[tuple[int, int]] = frozenset(),  # type: ignore[assignment]
) -> BatchPairs:
    none = torch.empty(0, dtype=torch.int64)
    known, wrong = (torch.zeros(texts, texts, dtype=torch.bool) for _ in range(2))
    for matrix, places in ((known, {*pairs, *answers}), (wrong, negatives)):
        for row, column in places:
            matrix[row, column] = True
    query, positive = (torch.tensor(side) for side in zip(*pairs, strict=True))
    return BatchPairs(query, positive, known, wrong, none, none, none.double())


def naive_info_nce(s, t, pairs, answers, negatives, tau, ratio):
    """Loops over pairs, directions and candidates, in Python floats."""
    cos, guide = (s @ s.T).tolist(), (t @ t.T).tolist()
    queries = {q for q, _ in pairs}
    documents = {d for _, d in pairs} | {d for q, d in negatives if q in queries}
    known, total = {*pairs, *answers}, 0.0
    for q, d in pairs:
        bound = guide[q][d] - (1 - ratio) * abs(guide[q][d])
        forward = [
            x for x in documents - {d, q} if (q, x) not in known and ((q, x) in negatives or guide[q][x] < bound)
        ]
        backward = [x for x in queries - {q, d} if (x, d) not in known and ((x, d) in negatives or guide[d][x] < bound)]
        for anchor, right, others in ((q, d, forward), (d, q, backward)):
            logits = [cos[anchor][x] / tau for x in (right, *others)]
            total += math.log(sum(math.exp(each - logits[0]) for each in logits)) / (2 * len(pairs))
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ratio", [0.95, 0.5])
def test_info_nce_is_its_definition_with_false_negatives_left_out(seed, ratio):
    random = np.random.default_rng(seed)
    # Queries 0 to 7, documents 6 to 19: some texts are both, and some documents answer two queries.
    pairs = sorted({(int(random.integers(8)), int(random.integers(8, 20))) for _ in range(12)})
    answers = {(int(random.integers(8)), int(random.integers(8, 20))) for _ in range(5)}
    negatives = {(int(random.integers(8)), int(random.integers(6, 20))) for _ in range(8)} - {*pairs, *answers}
    s, t = unit(20, 6, seed), unit(20, 5, 100 + seed)
    value = info_nce(s, t @ t.T, pairs_of(20, pairs, answers, negatives), 0.05, ratio)
    assert value.item() == pytest.approx(naive_info_nce(s, t, pairs, answers, negatives, 0.05, ratio), abs=1e-12)


def test_info_nce_of_distinct_pairs_is_the_loss_of_sentence_transformers():
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    s = unit(16, 8, 0)
    theirs = MultipleNegativesRankingLoss(torch.nn.Identity(), scale=20)
    expected = theirs.compute_loss_from_embeddings([s[:8], s[8:]], None)
    pairs = pairs_of(16, [(i, i + 8) for i in range(8)])
    assert info_nce(s, s @ s.T, pairs, 0.05, None, ("query_to_document",)).item() == pytest.approx(expected.item())


def test_a_text_that_the_teachers_find_as_near_as_the_positive_is_no_negative():
    s = unit(4, 4, 0)
    pairs = pairs_of(4, [(0, 2), (1, 3)])
    near, far = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    for guide, other in ((near, 0.79), (far, 0.7)):
        for i, j, cosine in ((0, 2, 0.8), (1, 3, 0.8), (0, 3, other), (1, 2, other)):
            guide[i, j] = guide[j, i] = cosine
    assert info_nce(s, near, pairs, 0.05, 0.95).item() == 0
    assert info_nce(s, far, pairs, 0.05, 0.95).item() == info_nce(s, far, pairs, 0.05, None).item() > 0


@pytest.mark.parametrize("seed", range(4))
def test_cosent_and_its_gradient_are_those_of_all_comparisons(seed):
    random = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 5, (30,), generator=random).double()  # with ties
    cosines = (torch.rand(30, generator=random, dtype=torch.float64) * 2 - 1).requires_grad_()
    higher, lower = (scores[:, None] > scores[None, :]).nonzero(as_tuple=True)
    naive = torch.log(1 + torch.exp(20 * (cosines[lower] - cosines[higher])).sum())
    (expected,) = torch.autograd.grad(naive, cosines)
    value = cosent(cosines, scores, 20)
    (gradient,) = torch.autograd.grad(value, cosines)
    torch.testing.assert_close(value, naive)
    torch.testing.assert_close(gradient, expected)


def test_cosent_of_scores_that_are_all_equal_is_zero_with_a_gradient_of_zero():
    cosines = torch.rand(5, dtype=torch.float64).requires_grad_()
    for chosen in (cosines, cosines[:0]):
        value = cosent(chosen, torch.ones(len(chosen)), 20)
        (gradient,) = torch.autograd.grad(value, cosines)
        assert value.item() == 0
        assert not gradient.any()


def test_spread_out_is_the_two_moments_of_all_other_cosines():
    s = unit(12, 5, 0)
    others = (s @ s.T)[~torch.eye(12, dtype=torch.bool)]
    torch.testing.assert_close(spread_out(s), others.mean() ** 2 + others.square().mean() - 1 / 5)
    assert spread_out(torch.eye(1, 5)).item() == 0
