"""How far the scores of the last stage differ between seeds of the training."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from stella_assets.evaluation.scores import seed_model
from stella_assets.evaluation.summary import ALL_TASKS, SeedSummary

if TYPE_CHECKING:
    from stella_assets.evaluation.scoreboard import Scoreboard


class Spread(TypedDict):
    """Mean, standard deviation (None of one value), lowest and highest of the values of several seeds."""

    seeds: int
    mean: float
    spread: float | None
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """How far the values of several seeds differ."""
    return {
        "seeds": len(values),
        "mean": statistics.mean(values),
        # The sample's standard deviation, with n - 1: the seeds are a few draws of many.
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "lowest": min(values),
        "highest": max(values),
    }


def summarise_seeds(board: Scoreboard, student: str, seeds: Sequence[int]) -> tuple[SeedSummary, ...]:
    """Compare the last stage of the recipe's own seed with that of other seeds.

    Args:
        board: The scores.
        student: Name of the last stage.
        seeds: The other seeds.

    Returns:
        One summary per dimension; none without other seeds.
    """
    names = [student, *map(seed_model, seeds)]
    tasks = board.groups[ALL_TASKS]
    rows = []
    # Other seeds score the same heads as the student, so its dimensions are theirs.
    for dim in (dim for name, dim in board.models if name == student and seeds):
        points = [board.points[name, dim] for name in names]
        means = [board.mean((name, dim), tasks) for name in names]
        by_task = {task: spread([scores[task] for scores in points])["spread"] for task in tasks}
        rows.append(SeedSummary(dimension=dim, **spread(means), tasks=by_task))
    return tuple(rows)
