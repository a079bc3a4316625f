"""The relative-similarity loss against the published form, value and gradient, forward and backward.

python -m benchmarks.relative_similarity [--batch 128]
"""

import statistics
import time
from typing import Annotated

import torch
import typer

from benchmarks import write_row
from stella_assets.training.losses import relative_similarity_loss

MARGIN = 0.015


def published_form(student_BB: torch.Tensor, teacher_BB: torch.Tensor) -> torch.Tensor:
    """Every pair of texts against every other one: P x P, P = B (B - 1) / 2."""
    i, j = torch.triu_indices(len(student_BB), len(student_BB), offset=1)
    s, t = student_BB[i, j], teacher_BB[i, j]
    hinge = torch.relu(s[None, :] - s[:, None] + MARGIN)
    return torch.where(t[:, None] > t[None, :], hinge, 0).sum() / (len(s) * (len(s) - 1) / 2)


def grams(batch: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A student that is near its teacher."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.nn.functional.normalize(torch.randn(batch, 128, generator=generator), dim=1)
    student = torch.nn.functional.normalize(teacher + 0.05 * torch.randn(batch, 128, generator=generator), dim=1)
    return (student @ student.T), teacher @ teacher.T


def timed(loss, student: torch.Tensor, teacher: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    leaf = student.clone().requires_grad_()
    started = time.perf_counter()
    value = loss(leaf, teacher)
    value.backward()
    return time.perf_counter() - started, value.item(), leaf.grad


def main(batch: Annotated[int, typer.Option(help="Texts of a batch.")] = 128, repeats: int = 5) -> None:
    """Time both in turn on the same matrices."""

    def fast(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return relative_similarity_loss(student, teacher, MARGIN)

    ratios, ours, theirs, difference = [], [], [], 0.0
    timed(fast, *grams(16, 0))
    for seed in range(repeats):
        student, teacher = grams(batch, seed)
        a, value_a, gradient_a = timed(fast, student, teacher)
        b, value_b, gradient_b = timed(published_form, student, teacher)
        assert abs(value_a - value_b) < 1e-6
        difference = max(difference, (gradient_a - gradient_b).abs().max().item())
        ours.append(a)
        theirs.append(b)
        ratios.append(b / a)
    large, _, _ = timed(fast, *grams(1024, 0))
    write_row(
        "relative_similarity",
        {
            "batch": batch,
            "seconds": round(statistics.median(ours), 5),
            "published_form_seconds": round(statistics.median(theirs), 4),
            "speedup": round(statistics.median(ratios), 1),
            "largest_gradient_difference": difference,
            "seconds_at_batch_1024": round(large, 3),
        },
    )


if __name__ == "__main__":
    typer.run(main)
