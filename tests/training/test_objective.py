"""What a stage minimises: targets without the wide concatenation, units of the teachers' spread, float32 throughout."""

import pytest
import torch
from torch.nn.functional import normalize

from stella_assets.recipe import Stage
from stella_assets.training.objective import stage_loss
from stella_assets.training.targets import Spread, Targets

ONE = Spread(1.0, 1.0)


def vectors(seed: int, texts: int, dim: int, mean: float = 0.0) -> torch.Tensor:
    return normalize(torch.randn(texts, dim, generator=torch.Generator().manual_seed(seed)) + mean, dim=1)


def make_stage(**losses: object) -> Stage:
    return Stage.model_validate({"train_layers": "all", "steps": 1, "learning_rate": 1e-3, **losses})


def test_the_gram_matrix_of_several_teachers_is_the_weighted_mean_of_their_own():
    blocks = [vectors(0, 9, 12), vectors(1, 9, 5), vectors(2, 9, 7)]
    targets = Targets(blocks, [1.0, 0.5, 2.0])
    torch.testing.assert_close(targets.vectors.norm(dim=1), torch.ones(9))
    torch.testing.assert_close(targets.gram, targets.vectors @ targets.vectors.T)


def test_losses_stay_float32_under_autocast():
    stage = make_stage(full_head={"cosine": 1, "similarity": 1, "relative_similarity": 1})
    student, targets = vectors(0, 16, 32), Targets([vectors(1, 16, 32)], [1.0])
    plain = stage_loss(stage, {32: student}, 32, targets, ONE).values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = stage_loss(stage, {32: student}, 32, Targets([vectors(1, 16, 32)], [1.0]), ONE)
    assert inside.total.dtype == torch.float32
    assert inside.values() == plain


def test_weights_per_spread_carry_over_to_a_teacher_whose_texts_all_look_alike():
    """A student that is as wrong, in units of the spread, costs about as much; without them it seems far better."""
    losses = {"cosine": 1, "similarity": 1, "relative_similarity": 1}
    totals = {}
    for mean in (0.0, 2.0):
        sample = vectors(1, 4000, 32, mean)
        error = (sample - sample.mean(dim=0)).roll(1, dims=0)
        spread = Spread.of(Targets([sample], [1.0]))
        student, targets = normalize(sample + 0.5 * error, dim=1)[:200], Targets([sample[:200]], [1.0])
        for normalize_by_teacher_std in (False, True):
            stage = make_stage(
                full_head={**losses, "margin": 0.0, "normalize_by_teacher_std": normalize_by_teacher_std}
            )
            totals[mean, normalize_by_teacher_std] = stage_loss(stage, {32: student}, 32, targets, spread).total.item()
    assert totals[0.0, False] > 4 * totals[2.0, False]
    assert 0.5 < totals[2.0, True] / totals[0.0, True] < 2


def test_the_spread_is_what_the_best_constant_answer_costs():
    targets = Targets([vectors(1, 3000, 16, 0.5)], [1.0])
    spread = Spread.of(targets)
    constant = normalize(targets.vectors.mean(dim=0), dim=0)
    assert spread.distance == pytest.approx(float(1 - (targets.vectors @ constant).mean()), abs=1e-4)
    off_diagonal = targets.gram[~torch.eye(3000, dtype=torch.bool)]
    assert spread.deviation == pytest.approx(float(off_diagonal.std()), rel=1e-3)


def test_short_heads_have_losses_of_their_own_by_dimension():
    stage = make_stage(
        full_head={"cosine": 1}, matryoshka_heads={8: {"similarity": 2}, 4: {"relative_similarity": 1}},
        matryoshka_targets=["teachers", "full_head"],
    )  # fmt: skip
    heads = {16: vectors(0, 10, 16), 8: vectors(3, 10, 8), 4: vectors(4, 10, 4)}
    loss = stage_loss(stage, heads, 16, Targets([vectors(1, 10, 16)], [1.0]), ONE)
    assert set(loss.terms) == {
        "16/cosine", "8/similarity", "8/self/similarity", "4/relative_similarity", "4/self/relative_similarity"
    }  # fmt: skip
    expected = loss.terms["16/cosine"] + 2 * (loss.terms["8/similarity"] + loss.terms["8/self/similarity"])
    expected = expected + loss.terms["4/relative_similarity"] + loss.terms["4/self/relative_similarity"]
    torch.testing.assert_close(loss.total, expected)


def test_the_teacher_head_is_not_pulled_towards_the_short_heads():
    short = {"matryoshka_heads": {"similarity": 1}, "matryoshka_targets": ["full_head"]}
    stage = make_stage(full_head={"cosine": 1}, **short)
    heads = {16: vectors(0, 10, 16).requires_grad_(), 8: vectors(3, 10, 8).requires_grad_()}
    targets = Targets([vectors(1, 10, 16)], [1.0])
    stage_loss(stage, heads, 16, targets, ONE).total.backward()
    alone = vectors(0, 10, 16).requires_grad_()
    (1 - (alone * targets.vectors).sum(dim=1).mean()).backward()
    torch.testing.assert_close(heads[16].grad, alone.grad)


@pytest.mark.parametrize("texts", [1, 2])
def test_a_batch_of_one_or_two_texts_has_a_finite_loss(texts: int):
    stage = make_stage(
        full_head={"cosine": 1, "l2": 1, "angular": 1, "similarity": 1, "relative_similarity": 1},
        matryoshka_heads={"similarity": 1, "relative_similarity": 1},
    )
    heads = {16: vectors(0, texts, 16).requires_grad_(), 8: vectors(3, texts, 8).requires_grad_()}
    loss = stage_loss(stage, heads, 16, Targets([vectors(1, texts, 16)], [1.0]), ONE)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(head.grad).all() for head in heads.values())
