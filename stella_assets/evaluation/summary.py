"""What the scores say: means, retention of each teacher, gain over the untouched student. Plain JSON, no prose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from stella_assets.evaluation.bootstrap import Model, interval, resample
from stella_assets.recipe import Recipe

Row = Mapping[str, Any]
ALL_TASKS = "mean"
"""Among task types, the mean of all tasks."""


class Scoreboard:
    """Scores of several models on the same tasks, and what resampling makes of them.

    Args:
        scores: Rows of `scores.parquet`.
        samples: Of each model, rows of `samples.parquet`.
        order: Models in the order in which they are shown.
    """

    def __init__(self, scores: Iterable[Row], samples: Mapping[str, pl.DataFrame], order: Sequence[str]) -> None:
        self.points: dict[Model, dict[str, float]] = {}
        self.types: dict[str, str] = {}
        for row in scores:
            self.points.setdefault((row["model"], row["dimension"]), {})[row["task"]] = row["score"]
            self.types[row["task"]] = row["type"]
        self.models = sorted(self.points, key=lambda model: (order.index(model[0]), -model[1]))
        self.resampled = resample(samples, self.points)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Tasks by type, in the order in which the types are met, and all of them."""
        groups: dict[str, list[str]] = {}
        for task, kind in self.types.items():
            groups.setdefault(kind, []).append(task)
        return {**groups, ALL_TASKS: list(self.types)}

    def full(self, name: str) -> Model:
        """A model at its largest dimension."""
        return max((model for model in self.points if model[0] == name), key=lambda model: model[1])

    def mean(self, model: Model, tasks: Sequence[str]) -> float:
        """Mean score of a model on some tasks."""
        return sum(self.points[model][task] for task in tasks) / len(tasks)

    def resampled_means(self, model: Model, tasks: Sequence[str]) -> np.ndarray:
        """`[R]`: mean score on some tasks, of each resample."""
        return np.mean([self.resampled[model][task] for task in tasks], axis=0)

    def ratio(self, part: Model, whole: Model, tasks: Sequence[str]) -> dict[str, Any]:
        """One model's mean as a share of another's, with its interval; null where the other's is not above 0."""
        below, below_R = self.mean(whole, tasks), self.resampled_means(whole, tasks)
        if below <= 0 or (below_R <= 0).any():
            return {"value": None, "interval": None}
        return _figure(self.mean(part, tasks) / below, self.resampled_means(part, tasks) / below_R)

    def difference(self, model: Model, other: Model, tasks: Sequence[str]) -> dict[str, Any]:
        """How many points of 100 a model's mean is above another's, with its interval."""
        points = 100 * (self.mean(model, tasks) - self.mean(other, tasks))
        return _figure(points, 100 * (self.resampled_means(model, tasks) - self.resampled_means(other, tasks)))


def _figure(value: float, values_R: np.ndarray) -> dict[str, Any]:
    return {"value": round(value, 6), "interval": interval(values_R)}


def summarise(recipe: Recipe, board: Scoreboard, order: Sequence[str]) -> dict[str, Any]:
    """Put the scores of all models together.

    Args:
        recipe: Whose scores they are.
        board: The scores.
        order: Models in the order in which they are shown; the last is the student.

    Returns:
        `{"recipe", "seed", "task_types", "models", "retention", "gain"}`. Of each model there are `name`, `dimension`,
        `scores` by task, `types` by task type, `mean` over tasks with its `interval`, and `mean_of_types`.
        `retention[reference][task type or "mean"]` is the last stage's score at its largest dimension as a share of the
        reference's, `gain` its mean less the untouched student's in points of 100; both are `{"value", "interval"}`.
        Intervals are of 95%, by resampling.
    """
    groups = board.groups
    types = [kind for kind in groups if kind != ALL_TASKS]
    models = []
    for model in (model for model in board.models if model[0] in order):
        by_type = {kind: round(board.mean(model, groups[kind]), 6) for kind in types}
        models.append(
            {
                "name": model[0],
                "dimension": model[1],
                "scores": board.points[model],
                "types": by_type,
                "mean": round(board.mean(model, groups[ALL_TASKS]), 6),
                "interval": interval(board.resampled_means(model, groups[ALL_TASKS])),
                "mean_of_types": round(sum(by_type.values()) / len(types), 6),
            }
        )
    student = board.full(order[-1])
    references = [name for name in order if name.startswith("teacher/") or name == "concatenation"]
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "task_types": board.types,
        "models": models,
        "retention": {
            name: {kind: board.ratio(student, board.full(name), tasks) for kind, tasks in groups.items()}
            for name in references
        },
        "gain": board.difference(student, board.full("base_model"), groups[ALL_TASKS]),
    }


def at_full_dimension(models: Iterable[Row]) -> dict[str, Row]:
    """Each model at its largest dimension, by name."""
    return {model["name"]: model for model in sorted(models, key=lambda model: model["dimension"])}
