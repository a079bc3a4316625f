"""Each loss about pairs is its definition, written naively in float64."""

import math

import numpy as np
import pytest
import torch

from stella_assets.training.losses.angle import angle_similarity
from stella_assets.training.losses.cosent import cosent
from stella_assets.training.losses.info_nce import InfoNce, info_nce
from stella_assets.training.losses.soft_kl import soft_kl
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


FOUR = ("query_to_document", "query_to_query", "document_to_query", "document_to_document")


@pytest.mark.parametrize("directions", [FOUR, FOUR[:2], FOUR[::3]])
@pytest.mark.parametrize("negatives", [0, 2])
def test_one_sum_over_directions_is_the_loss_of_sentence_transformers(directions, negatives):
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    names = {direction: direction.replace("document", "doc") for direction in FOUR}
    raw = unit(8 * (2 + negatives), 8, 0).requires_grad_()
    s = torch.nn.functional.normalize(raw, dim=1)  # theirs normalises, too
    theirs = MultipleNegativesRankingLoss(
        torch.nn.Identity(), scale=20, directions=tuple(names[each] for each in directions), partition_mode="joint"
    )
    expected = theirs.compute_loss_from_embeddings(list(s.split(8)), None)
    wrong = {(i, i + 8 * (2 + n)) for i in range(8) for n in range(negatives)}
    pairs = pairs_of(len(s), [(i, i + 8) for i in range(8)], negatives=wrong)
    value = info_nce(s, torch.zeros(len(s), len(s)), pairs, 0.05, None, directions)
    assert value.item() == pytest.approx(expected.item())
    (ours,), (those,) = (torch.autograd.grad(each, raw, retain_graph=True) for each in (value, expected))
    torch.testing.assert_close(ours, those)


def test_texts_of_one_side_that_share_an_answer_or_a_query_are_not_compared():
    s = unit(4, 4, 0)
    shared = pairs_of(4, [(0, 2), (1, 2), (1, 3)])  # queries 0 and 1 share 2; documents 2 and 3 share 1
    guide = torch.zeros(4, 4)
    cos = ((s @ s.T) / 0.05).tolist()
    # Left for (0, 2): document 3 and nothing else; for (1, 2): nothing; for (1, 3): query 0.
    naive = [
        math.log(2 * math.exp(cos[0][2]) + math.exp(cos[0][3])) - cos[0][2],
        math.log(2 * math.exp(cos[1][2])) - cos[1][2],
        math.log(2 * math.exp(cos[1][3]) + math.exp(cos[0][3])) - cos[1][3],
    ]
    assert info_nce(s, guide, shared, 0.05, None, FOUR).item() == pytest.approx(sum(naive) / 3)


def test_directions_without_a_positive_are_refused():
    with pytest.raises(ValueError, match="query_to_query has no positive of its own; add query_to_document"):
        InfoNce(weight=1, directions=("query_to_query",))


@pytest.mark.parametrize("seed", range(3))
def test_soft_kl_is_its_definition(seed):
    random = np.random.default_rng(seed)
    pairs = sorted({(int(random.integers(6)), int(random.integers(4, 12))) for _ in range(8)})
    pairs = [(q, d) for q, d in pairs if q != d]
    negatives = {(pairs[0][0], 12), (pairs[1][0], 13), (15, 14)}  # 15 is no query of the batch
    s, t = unit(16, 6, seed).requires_grad_(), unit(16, 5, 100 + seed)
    queries = sorted({q for q, _ in pairs})
    documents = sorted({d for _, d in pairs} | {12, 13})
    total = torch.zeros((), dtype=torch.float64)
    for q in queries:
        chosen = [d for d in documents if d != q]
        p, log_q = [], []
        for d in chosen:
            p.append(math.exp(t[q] @ t[d] / 0.05) / sum(math.exp(t[q] @ t[e] / 0.05) for e in chosen))
            log_q.append(s[q] @ s[d] / 0.05 - torch.stack([(s[q] @ s[e] / 0.05).exp() for e in chosen]).sum().log())
        for a, b in zip(p, log_q, strict=True):
            total = total + a * (math.log(a) - b) / len(queries)
    value = soft_kl(s, t @ t.T, pairs_of(16, pairs, negatives=negatives), 0.05)
    torch.testing.assert_close(value, total)
    (ours,), (naive,) = (torch.autograd.grad(each, s) for each in (value, total))
    torch.testing.assert_close(ours, naive)


def test_soft_kl_of_the_teachers_themselves_is_zero_at_any_temperature():
    s = unit(12, 6, 0).requires_grad_()
    pairs = pairs_of(12, [(i, i + 6) for i in range(6)])
    for tau in (1.0, 0.05, 0.001):  # at the last one, float32 probabilities are 0
        value = soft_kl(s.float(), (s @ s.T).detach(), pairs, tau)
        (gradient,) = torch.autograd.grad(value, s)
        assert value.item() == pytest.approx(0, abs=1e-3)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dimension", [8, 7])
def test_angle_similarity_is_that_of_complex_vectors(dimension):
    x, y = unit(20, dimension, 0), unit(20, dimension, 1)
    whole = [torch.nn.functional.pad(side, (0, dimension % 2)) for side in (x, y)]
    a, b = (torch.complex(*side.chunk(2, dim=1)) for side in whole)
    inner = (a * b.conj()).sum(dim=1)
    torch.testing.assert_close(angle_similarity(x, y), (inner.real + inner.imag).abs())


def test_angle_is_the_loss_of_sentence_transformers():
    from sentence_transformers.losses import AnglELoss

    x, y = unit(20, 8, 0), unit(20, 8, 1)
    scores = torch.arange(20).double() % 5
    expected = AnglELoss(torch.nn.Identity()).compute_loss_from_embeddings([x, y], scores)
    assert cosent(angle_similarity(x, y), scores, 20).item() == pytest.approx(expected.item())


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
