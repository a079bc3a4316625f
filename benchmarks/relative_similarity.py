"""The relative-similarity loss of eight heads compared with the published form: value, gradient, time and memory.

python -m benchmarks.relative_similarity [--batch 128] [--heads 8]
"""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Annotated

import psutil
import torch
import typer

from benchmarks import write_row
from stella_assets.storage.memory import PeakMemory
from stella_assets.training.gram import gram
from stella_assets.training.losses.relative_similarity import relative_similarity_loss

MARGIN = 0.015
DOUBLINGS = (128, 256, 512, 1024, 2048)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def ours(student_BB: torch.Tensor, teacher_BB: torch.Tensor) -> torch.Tensor:
    return relative_similarity_loss(student_BB, teacher_BB, MARGIN)


def published_form(student_BB: torch.Tensor, teacher_BB: torch.Tensor) -> torch.Tensor:
    """Every pair of texts is compared with every other one: P x P, P = B (B - 1) / 2."""
    i, j = torch.triu_indices(len(student_BB), len(student_BB), offset=1)
    s, t = student_BB[i, j], teacher_BB[i, j]
    hinge = torch.relu(s[None, :] - s[:, None] + MARGIN)
    return torch.where(t[:, None] > t[None, :], hinge, 0).sum() / (len(s) * (len(s) - 1) / 2)


def grams(batch: int, heads: int, seed: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """A teacher, and heads of a student that is near it."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.nn.functional.normalize(torch.randn(batch, 128, generator=generator), dim=1)
    noise = [0.05 * torch.randn(batch, 128, generator=generator) for _ in range(heads)]
    return [gram(torch.nn.functional.normalize(teacher + part, dim=1)) for part in noise], gram(teacher)


def timed(loss: Loss, heads: list[torch.Tensor], teacher: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Seconds of all heads, forward and backward; the value; the gradient of the first head."""
    leaves = [head.clone().requires_grad_() for head in heads]
    started = time.perf_counter()
    value = torch.stack([loss(leaf, teacher) for leaf in leaves]).sum()
    value.backward()
    seconds = time.perf_counter() - started
    assert leaves[0].grad is not None
    return seconds, value.item(), leaves[0].grad


def main(
    batch: Annotated[int, typer.Option(help="Texts of a batch.")] = 128,
    heads: Annotated[int, typer.Option(help="Heads of the student.")] = 8,
    repeats: int = 3,
) -> None:
    """Time both on the same matrices, alternating; then ours alone as batches double."""
    ratios, fast, slow, difference = [], [], [], 0.0
    timed(ours, *grams(16, heads, 0))
    for seed in range(repeats):
        students, teacher = grams(batch, heads, seed)
        a, value_a, gradient_a = timed(ours, students, teacher)
        b, value_b, gradient_b = timed(published_form, students, teacher)
        assert abs(value_a - value_b) < 1e-5
        difference = max(difference, (gradient_a - gradient_b).abs().max().item())
        fast.append(a)
        slow.append(b)
        ratios.append(b / a)
    by_batch, extra = {}, 0.0
    for size in DOUBLINGS:
        students, teacher = grams(size, 1, 0)
        with PeakMemory() as memory:
            before = psutil.Process().memory_info().rss / 2**20
            by_batch[size] = statistics.median(timed(ours, students, teacher)[0] for _ in range(3))
        if size == 1024:
            extra = memory.peak_mib - before
    # Not asserted: where the matrices outgrow the processor's cache, the ratio jumps, at another size on each machine.
    growth = {f"{a}->{b}": round(by_batch[b] / by_batch[a], 2) for a, b in itertools.pairwise(DOUBLINGS)}
    write_row(
        "relative_similarity",
        {
            "batch": batch,
            "heads": heads,
            "seconds": round(statistics.median(fast), 4),
            "published_form_seconds": round(statistics.median(slow), 3),
            "speedup": round(statistics.median(ratios), 1),
            "largest_gradient_difference": difference,
            "seconds_of_one_head_by_batch": {size: round(seconds, 4) for size, seconds in by_batch.items()},
            "growth_as_batches_double": growth,
            "largest_growth": max(growth.values()),
            "extra_mib_at_batch_1024": round(extra),
        },
    )
    assert statistics.median(ratios) >= 50, "less than 50 times faster than the published form"
    assert extra < 1024, "more than 1 GiB of extra memory at a batch of 1,024"


if __name__ == "__main__":
    typer.run(main)
