"""The full head in closed form: scikit-learn's ridge, fitted to directions and as good as converged descent."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn.functional import normalize

from stella_assets.students import FULL
from stella_assets.students.dense.model import DenseStudent
from stella_assets.training.closed_form import Fit, fit_full_head
from stella_assets.training.ridge import Linear, NormalEquations, Norms, VarianceRescaling
from stella_assets.training.stages.closed_form import ClosedForm
from stella_assets.training.targets import teacher_part
from tests.training.conftest import NARROW, WIDE, Lesson

CLOSED_FORM = {"method": "closed_form", "train_layers": 0, "full_head": {"cosine": 10, "similarity": 200}}


def fit(lesson: Lesson, student: DenseStudent, *teachers: str, **changes: object) -> Fit:
    stage = ClosedForm.model_validate({**CLOSED_FORM, **changes})
    objective = stage.objective(student.dimensions)
    part = teacher_part(lesson.snapshot.layout, stage.teachers)
    return fit_full_head(student, objective, "s", lesson.data(*teachers), part, stage.texts)


@pytest.mark.parametrize("ridge_lambda", [1e-4, 0.3])
def test_sums_over_blocks_give_the_ridge_of_all_texts(ridge_lambda: float):
    random = np.random.default_rng(0)
    x, y = random.standard_normal((500, 12)) * np.linspace(0.1, 3, 12) + 2, random.standard_normal((500, 5))
    equations = NormalEquations(12, 5, torch.device("cpu"))
    for part in np.array_split(np.arange(500), 7):
        equations.add(torch.from_numpy(x[part]), torch.from_numpy(y[part]))
    solution = equations.solve(ridge_lambda)
    ridge = Ridge(alpha=ridge_lambda * x.var(axis=0).mean() * 500).fit(x, y)
    np.testing.assert_allclose(solution.weight_DH, ridge.coef_, atol=1e-10)
    np.testing.assert_allclose(solution.bias_D, ridge.intercept_, atol=1e-10)


def texts_that_a_linear_map_half_explains(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States of uneven variance and length, and unit targets that depend on them and on what the states do not have."""
    random = torch.Generator().manual_seed(seed)
    world = torch.randn(16, 24, generator=random)
    noise = torch.Generator().manual_seed(seed + 100)
    x = torch.randn(4000, 16, generator=noise) * torch.linspace(0.2, 2, 16) * torch.rand(4000, 1, generator=noise) + 0.5
    return x, normalize(x @ world + 2 * torch.randn(4000, 24, generator=noise), dim=1)


def test_directions_are_fitted_as_well_as_by_converged_descent():
    x, t = texts_that_a_linear_map_half_explains(0)
    norms, equations = Norms(x[:2000], t[:2000]), NormalEquations(16, 24, torch.device("cpu"))
    plain = NormalEquations(16, 24, torch.device("cpu"))
    for part in torch.arange(4000).split(500):
        equations.add(x[part], *norms.weigh(x[part], t[part]))
        plain.add(x[part], t[part])

    def loss(linear: Linear) -> float:
        return 1 - (normalize(linear(x), dim=1) * t).sum(dim=1).mean().item()

    weight, bias = torch.zeros(24, 16), torch.zeros(24)
    for parameter in (weight, bias):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1)).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = 1 - (normalize(x @ weight.T + bias, dim=1) * t).sum(dim=1).mean()
        value.backward()
        return value

    optimizer.step(closure)
    descended = loss(Linear(weight.detach(), bias.detach()))
    assert loss(equations.solve(1e-6)) < loss(plain.solve(1e-6))
    assert loss(equations.solve(1e-6)) <= descended + 0.002


def test_variance_rescaling_gives_back_the_variance_of_the_teachers():
    x, t = texts_that_a_linear_map_half_explains(0)
    equations = NormalEquations(16, 24, torch.device("cpu"))
    equations.add(x, t)
    solution = equations.solve(1e-6)
    rescale = VarianceRescaling(solution, equations, t)
    torch.testing.assert_close(rescale(0.0)(x), solution(x))
    centred = t.double() - t.double().mean(dim=0)
    for exponent, wanted in ((0.0, solution(x)), (1.0, centred)):
        directions = torch.linalg.svd(solution.weight_DH @ torch.linalg.cholesky(equations.covariance()))[0][:, :16]
        found = (rescale(exponent)(x) @ directions).std(dim=0, correction=0)
        torch.testing.assert_close(found, (wanted.double() @ directions).std(dim=0, correction=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(rescale(1.0)(x).mean(dim=0), solution(x).mean(dim=0), atol=1e-6, rtol=0)


def test_ridge_lambda_and_exponent_are_those_with_the_lowest_dev_loss(lesson):
    solved = fit(lesson, lesson.student())
    before, after = (
        next(row["value"] for row in solved.log if (row["step"], row["term"]) == (step, "total")) for step in (0, 1)
    )
    assert after == pytest.approx(min(solved.tried.values()))
    assert after < 0.2 * before


def test_fitting_to_some_teachers_leaves_the_others_dimensions_alone(lesson):
    student = lesson.student()
    before = student.head(FULL).linear.weight.detach().clone()
    fit(lesson, student, "narrow", teachers=["narrow"])
    changed = (student.head(FULL).linear.weight != before).any(dim=1)
    assert changed.tolist() == [False] * WIDE + [True] * NARROW


def test_a_number_of_texts_fits_to_a_sample(lesson):
    students = [lesson.student(), lesson.student()]
    for student, texts in zip(students, (50, 10_000), strict=True):
        fit(lesson, student, texts=texts)
    assert not torch.equal(students[0].head(FULL).linear.weight, students[1].head(FULL).linear.weight)
