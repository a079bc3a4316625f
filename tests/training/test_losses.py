"""The losses compared with their definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_assets.training.gram import gram
from stella_assets.training.losses.angular import angular_loss
from stella_assets.training.losses.cosine import cosine_loss
from stella_assets.training.losses.l2 import l2_loss
from stella_assets.training.losses.relative_similarity import relative_similarity_loss
from stella_assets.training.losses.similarity import similarity_loss


def naive_relative_similarity(
    student_BB: torch.Tensor, teacher_BB: torch.Tensor, margin: float, min_gap: float = 0.0
) -> torch.Tensor:
    """The published form: every pair is compared with every other one, O(B^4)."""
    i, j = torch.triu_indices(len(student_BB), len(student_BB), offset=1)
    s, t = student_BB[i, j], teacher_BB[i, j]
    hinge = torch.relu(s[None, :] - s[:, None] + margin)
    comparisons = len(s) * (len(s) - 1) / 2
    return torch.where(t[:, None] - min_gap > t[None, :], hinge, 0).sum() / comparisons


def assert_same_value_and_gradient(
    student: torch.Tensor, teacher: torch.Tensor, margin: float, min_gap: float = 0.0
) -> None:
    fast_leaf, naive_leaf = student.clone().requires_grad_(), student.clone().requires_grad_()
    fast = relative_similarity_loss(fast_leaf, teacher, margin, min_gap)
    naive = naive_relative_similarity(naive_leaf, teacher, margin, min_gap)
    fast.backward()
    naive.backward()
    torch.testing.assert_close(fast, naive, rtol=0, atol=1e-9)
    torch.testing.assert_close(fast_leaf.grad, naive_leaf.grad, rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(3, 14),
    seed=st.integers(0, 2**31),
    margin=st.sampled_from([0.0, 0.015, 0.5, 3.0]),
    min_gap=st.sampled_from([0.0, 0.015, 0.7]),
)
def test_relative_similarity_equals_the_published_form_on_random_vectors(
    batch: int, seed: int, margin: float, min_gap: float
):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(batch, batch, generator=generator, dtype=torch.float64) for _ in range(2))
    assert_same_value_and_gradient(student, teacher, margin, min_gap)


@settings(max_examples=60, deadline=None)
@given(batch=st.integers(3, 12), seed=st.integers(0, 2**31), levels=st.integers(1, 4), gap=st.sampled_from([0.0, 0.25]))
def test_relative_similarity_equals_the_published_form_when_scores_are_tied(
    batch: int, seed: int, levels: int, gap: float
):
    generator = torch.Generator().manual_seed(seed)
    # Quarters are exact in binary, so sums with the margin tie exactly as well.
    student, teacher = (torch.randint(0, levels, (batch, batch), generator=generator).double() / 4 for _ in range(2))
    assert_same_value_and_gradient(student, teacher, 0.25, gap)


ADVERSARIAL = {
    "the student orders all pairs the other way": lambda t: -t,
    "the student finds all texts alike": torch.ones_like,
    "the student is the teacher": lambda t: t,
    "student scores lie exactly a margin apart": lambda t: torch.round(t * 4) / 4,
    "one score is far off": lambda t: torch.where(t == t.max(), 1e6, t),
}


@pytest.mark.parametrize("case", ADVERSARIAL)
@pytest.mark.parametrize("gap", [0.0, 0.25])
def test_relative_similarity_equals_the_published_form_on_adversarial_scores(case: str, gap: float):
    scores = torch.randn(13, 13, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    teacher = (scores + scores.T) / 2
    assert_same_value_and_gradient(ADVERSARIAL[case](teacher), teacher, 0.25, gap)


def test_a_perfect_student_has_no_loss_where_gaps_below_the_margin_are_left_out():
    vectors = torch.nn.functional.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    cosines = gram(vectors)
    assert relative_similarity_loss(cosines, cosines, 0.015).item() > 1e-4
    assert relative_similarity_loss(cosines, cosines, 0.015, min_gap=0.015).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_relative_similarity_of_a_batch_without_comparisons_is_zero_with_a_gradient(batch: int):
    student = torch.ones(batch, batch, requires_grad=True)
    loss = relative_similarity_loss(student, torch.ones(batch, batch), 0.015)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_relative_similarity_of_equal_teacher_scores_is_zero():
    assert relative_similarity_loss(torch.rand(8, 8), torch.ones(8, 8), 0.015).item() == 0


def test_relative_similarity_handles_a_batch_whose_published_form_would_need_terabytes():
    vectors = torch.nn.functional.normalize(torch.randn(600, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    student = (vectors @ vectors.T).requires_grad_()
    loss = relative_similarity_loss(student, student.detach(), 0.015)
    loss.backward()
    assert 0 < loss.item() < 0.015  # a perfect student has a loss only for teacher gaps below the margin
    assert torch.isfinite(student.grad).all()


def test_cosine_and_similarity_losses_equal_their_definitions():
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.nn.functional.normalize(torch.randn(5, 7, generator=generator), dim=1) for _ in range(2))
    assert cosine_loss(s, t).item() == pytest.approx(sum(1 - float(s[k] @ t[k]) for k in range(5)) / 5)
    expected = sum((float(s[a] @ s[b]) - float(t[a] @ t[b])) ** 2 for a in range(5) for b in range(5)) / 25
    assert similarity_loss(s @ s.T, t @ t.T).item() == pytest.approx(expected)
    assert l2_loss(s, t).item() == pytest.approx(sum(float((s[k] - t[k]).norm()) for k in range(5)) / 5)
    angles = [math.acos(float(s[k] @ t[k])) / math.pi for k in range(5)]
    assert angular_loss(s, t).item() == pytest.approx(sum(angles) / 5, rel=1e-5)


def test_angular_loss_has_the_slope_of_arccos_and_is_finite_where_vectors_agree():
    generator = torch.Generator().manual_seed(1)
    s, t = (torch.nn.functional.normalize(torch.randn(6, 5, generator=generator).double(), dim=1) for _ in range(2))
    s.requires_grad_()
    angular_loss(s, t).backward()
    expected = -t / torch.sqrt(1 - (s * t).sum(dim=1, keepdim=True).detach() ** 2) / math.pi / 6
    torch.testing.assert_close(s.grad, expected)
    for same in (t.clone(), -t):
        same.requires_grad_()
        angular_loss(same, t).backward()
        assert torch.isfinite(same.grad).all()


def test_a_gram_matrix_is_float32_whatever_autocast_says():
    vectors = torch.nn.functional.normalize(torch.randn(50, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exact = gram(vectors)
    torch.testing.assert_close(exact, vectors @ vectors.T, atol=1e-6, rtol=0)
