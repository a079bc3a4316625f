"""What a stage minimises: targets without the wide concatenation, units of the teachers' spread, float32 throughout."""

import pytest
import torch
from torch.nn.functional import normalize

from stella_assets.students import FULL
from stella_assets.students.dense.settings import head_dimensions
from stella_assets.training.objective import Objective, stage_loss
from stella_assets.training.stages.descent import Descent
from stella_assets.training.targets import Spread, Targets

ONE = Spread(1.0, 1.0)


def vectors(seed: int, texts: int, dim: int, mean: float = 0.0) -> torch.Tensor:
    return normalize(torch.randn(texts, dim, generator=torch.Generator().manual_seed(seed)) + mean, dim=1)


def make_objective(full: int, *matryoshka: int, **losses: object) -> Objective:
    stage = Descent.model_validate({"train_layers": "all", "steps": 1, "learning_rate": 1e-3, **losses})
    return stage.objective(head_dimensions(full, matryoshka))


def test_the_gram_matrix_of_several_teachers_is_the_weighted_mean_of_their_own():
    blocks = [vectors(0, 9, 12), vectors(1, 9, 5), vectors(2, 9, 7)]
    targets = Targets(blocks, [1.0, 0.5, 2.0])
    torch.testing.assert_close(targets.vectors.norm(dim=1), torch.ones(9))
    torch.testing.assert_close(targets.gram, targets.vectors @ targets.vectors.T)


def test_losses_stay_float32_under_autocast():
    objective = make_objective(32, full_head={"cosine": 1, "similarity": 1, "relative_similarity": 1})
    student, targets = vectors(0, 16, 32), Targets([vectors(1, 16, 32)], [1.0])
    plain = stage_loss(objective, {FULL: student}, targets, ONE).values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = stage_loss(objective, {FULL: student}, Targets([vectors(1, 16, 32)], [1.0]), ONE)
    assert inside.total.dtype == torch.float32
    assert inside.values() == plain


def test_weights_in_units_of_the_spread_carry_over_to_a_teacher_whose_texts_all_look_alike():
    """A student that is as wrong, in units of the spread, has about the same loss; in cosines it seems far better."""
    losses = {"cosine": 1, "similarity": 1, "relative_similarity": {"weight": 1, "margin": 0.0}}
    totals = {}
    for mean in (0.0, 2.0):
        sample = vectors(1, 4000, 32, mean)
        error = (sample - sample.mean(dim=0)).roll(1, dims=0)
        spread = Spread.of(Targets([sample], [1.0]))
        student, targets = normalize(sample + 0.5 * error, dim=1)[:200], Targets([sample[:200]], [1.0])
        for normalize_by_teacher_std in (False, True):
            objective = make_objective(32, full_head={**losses, "normalize_by_teacher_std": normalize_by_teacher_std})
            loss = stage_loss(objective, {FULL: student}, targets, spread)
            totals[mean, normalize_by_teacher_std] = loss.total.item()
    assert totals[0.0, False] > 4 * totals[2.0, False]
    assert 0.5 < totals[2.0, True] / totals[0.0, True] < 2


def test_the_spread_is_the_loss_of_the_best_constant_answer():
    targets = Targets([vectors(1, 3000, 16, 0.5)], [1.0])
    spread = Spread.of(targets)
    constant = normalize(targets.vectors.mean(dim=0), dim=0)
    assert spread.distance == pytest.approx(float(1 - (targets.vectors @ constant).mean()), abs=1e-4)
    off_diagonal = targets.gram[~torch.eye(3000, dtype=torch.bool)]
    assert spread.deviation == pytest.approx(float(off_diagonal.std()), rel=1e-3)


def test_matryoshka_heads_have_losses_of_their_own_by_dimension():
    objective = make_objective(
        16, 8, 4, full_head={"cosine": 1}, matryoshka_heads={8: {"similarity": 2}, 4: {"relative_similarity": 1}},
        matryoshka_targets=["teachers", "full_head"],
    )  # fmt: skip
    heads = {FULL: vectors(0, 10, 16), "8": vectors(3, 10, 8), "4": vectors(4, 10, 4)}
    loss = stage_loss(objective, heads, Targets([vectors(1, 10, 16)], [1.0]), ONE)
    assert set(loss.terms) == {
        "full/cosine", "8/similarity", "8/self/similarity", "4/relative_similarity", "4/self/relative_similarity"
    }  # fmt: skip
    expected = loss.terms["full/cosine"] + 2 * (loss.terms["8/similarity"] + loss.terms["8/self/similarity"])
    expected = expected + loss.terms["4/relative_similarity"] + loss.terms["4/self/relative_similarity"]
    torch.testing.assert_close(loss.total, expected)


def test_the_full_head_is_not_pulled_towards_the_matryoshka_heads():
    matryoshka = {"matryoshka_heads": {"similarity": 1}, "matryoshka_targets": ["full_head"]}
    objective = make_objective(16, 8, full_head={"cosine": 1}, **matryoshka)
    heads = {FULL: vectors(0, 10, 16).requires_grad_(), "8": vectors(3, 10, 8).requires_grad_()}
    targets = Targets([vectors(1, 10, 16)], [1.0])
    stage_loss(objective, heads, targets, ONE).total.backward()
    alone = vectors(0, 10, 16).requires_grad_()
    (1 - (alone * targets.vectors).sum(dim=1).mean()).backward()
    torch.testing.assert_close(heads[FULL].grad, alone.grad)


@pytest.mark.parametrize("texts", [1, 2])
def test_a_batch_of_one_or_two_texts_has_a_finite_loss(texts: int):
    objective = make_objective(
        16,
        8,
        full_head={"cosine": 1, "l2": 1, "angular": 1, "similarity": 1, "relative_similarity": 1},
        matryoshka_heads={"similarity": 1, "relative_similarity": 1},
    )
    heads = {FULL: vectors(0, texts, 16).requires_grad_(), "8": vectors(3, texts, 8).requires_grad_()}
    loss = stage_loss(objective, heads, Targets([vectors(1, texts, 16)], [1.0]), ONE)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(head.grad).all() for head in heads.values())
