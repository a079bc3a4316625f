"""The teacher head in closed form: the same as scikit-learn's ridge, and no worse than descending to it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from stella_assets.training.loop import train_stage
from stella_assets.training.solve import NormalEquations, solve_stage
from tests.training.conftest import NARROW, WIDE, Lesson

SOLVE = {"method": "solve", "train_layers": 0, "teacher_head": {"cosine": 10, "similarity": 200}}


def solving_stage(lesson: Lesson, **changes: object):
    return type(lesson.stage()).model_validate({**SOLVE, **changes})


@pytest.mark.parametrize("strength", [1e-4, 0.3])
def test_sums_over_blocks_give_the_ridge_of_all_texts(strength: float):
    random = np.random.default_rng(0)
    x, y = random.standard_normal((500, 12)) * np.linspace(0.1, 3, 12) + 2, random.standard_normal((500, 5))
    equations = NormalEquations(12, 5, torch.device("cpu"))
    for part in np.array_split(np.arange(500), 7):
        equations.add(torch.from_numpy(x[part]), torch.from_numpy(y[part]))
    weight, bias = equations.solve(strength)
    ridge = Ridge(alpha=strength * x.var(axis=0).mean() * 500).fit(x, y)
    np.testing.assert_allclose(weight, ridge.coef_, atol=1e-10)
    np.testing.assert_allclose(bias, ridge.intercept_, atol=1e-10)


def test_a_solved_head_is_no_worse_than_one_that_descended(lesson, tmp_path):
    solved, descended = lesson.student(), lesson.student()
    by_solving = solve_stage(solved, solving_stage(lesson), "s", lesson.data())
    stage = lesson.stage(
        train_layers=0, short_heads=None, teacher_head=SOLVE["teacher_head"], steps=400, learning_rate=2e-3,
        checkpoint_every=100,
    )  # fmt: skip
    by_descent = train_stage(descended, stage, "s", lesson.data(), 5, tmp_path, print)
    lowest = min(row["value"] for row in by_descent.log if row["split"] == "dev" and row["term"] == "total")
    assert by_solving.log[-1]["term"] == "total"
    assert by_solving.log[-1]["value"] <= lowest
    assert by_solving.strength in by_solving.losses
    assert by_solving.log[-1]["value"] == min(by_solving.losses.values())


def test_solving_for_some_teachers_leaves_the_others_dimensions_alone(lesson):
    student = lesson.student()
    before = student.head(32).linear.weight.detach().clone()
    solve_stage(student, solving_stage(lesson, teachers=["narrow"]), "s", lesson.data("narrow"))
    changed = (student.head(32).linear.weight != before).any(dim=1)
    assert changed.tolist() == [False] * WIDE + [True] * NARROW


def test_a_sample_can_be_enough(lesson):
    students = [lesson.student(), lesson.student()]
    for student, texts in zip(students, (50, 10_000), strict=True):
        solve_stage(student, solving_stage(lesson, texts=texts), "s", lesson.data())
    assert not torch.equal(students[0].head(32).linear.weight, students[1].head(32).linear.weight)
