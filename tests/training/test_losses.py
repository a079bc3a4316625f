"""The losses against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_assets.training.losses import cosine_loss, relative_similarity_loss, similarity_loss


def naive_relative_similarity(student_BB: torch.Tensor, teacher_BB: torch.Tensor, margin: float) -> torch.Tensor:
    """The published form: every pair against every other one, O(B^4)."""
    i, j = torch.triu_indices(len(student_BB), len(student_BB), offset=1)
    s, t = student_BB[i, j], teacher_BB[i, j]
    hinge = torch.relu(s[None, :] - s[:, None] + margin)
    comparisons = len(s) * (len(s) - 1) / 2
    return torch.where(t[:, None] > t[None, :], hinge, 0).sum() / comparisons


def assert_same_value_and_gradient(student: torch.Tensor, teacher: torch.Tensor, margin: float) -> None:
    fast_leaf, naive_leaf = student.clone().requires_grad_(), student.clone().requires_grad_()
    fast = relative_similarity_loss(fast_leaf, teacher, margin)
    naive = naive_relative_similarity(naive_leaf, teacher, margin)
    fast.backward()
    naive.backward()
    torch.testing.assert_close(fast, naive, rtol=0, atol=1e-9)
    torch.testing.assert_close(fast_leaf.grad, naive_leaf.grad, rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(batch=st.integers(3, 14), seed=st.integers(0, 2**31), margin=st.sampled_from([0.0, 0.015, 0.5, 3.0]))
def test_relative_similarity_equals_the_published_form_on_random_vectors(batch: int, seed: int, margin: float):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(batch, batch, generator=generator, dtype=torch.float64) for _ in range(2))
    assert_same_value_and_gradient(student, teacher, margin)


@settings(max_examples=60, deadline=None)
@given(batch=st.integers(3, 12), seed=st.integers(0, 2**31), levels=st.integers(1, 4))
def test_relative_similarity_equals_the_published_form_when_scores_are_tied(batch: int, seed: int, levels: int):
    generator = torch.Generator().manual_seed(seed)
    # Quarters are exact in binary, so sums with the margin tie exactly as well.
    student, teacher = (torch.randint(0, levels, (batch, batch), generator=generator).double() / 4 for _ in range(2))
    assert_same_value_and_gradient(student, teacher, margin=0.25)


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
    assert 0 < loss.item() < 0.015  # a perfect student pays only for teacher gaps below the margin
    assert torch.isfinite(student.grad).all()


def test_cosine_and_similarity_losses_equal_their_definitions():
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.nn.functional.normalize(torch.randn(5, 7, generator=generator), dim=1) for _ in range(2))
    assert cosine_loss(s, t).item() == pytest.approx(sum(1 - float(s[k] @ t[k]) for k in range(5)) / 5)
    expected = sum((float(s[a] @ s[b]) - float(t[a] @ t[b])) ** 2 for a in range(5) for b in range(5)) / 25
    assert similarity_loss(s @ s.T, t @ t.T).item() == pytest.approx(expected)
