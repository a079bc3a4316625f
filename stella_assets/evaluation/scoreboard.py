"""Scores of several models on the same tasks, with the noise of their samples, and what they say together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stella_assets.evaluation.bootstrap import Model, interval, resample
from stella_assets.evaluation.model_scores import ModelScores
from stella_assets.evaluation.scores import BASE_MODEL, CONCATENATION, teacher_model
from stella_assets.evaluation.summary import ALL_TASKS, Difference, Figure, ModelSummary, Summary
from stella_assets.storage.polars import pl

Row = Mapping[str, Any]


class Scoreboard:
    """Scores of several models on the same tasks, and their resamples.

    Args:
        scores: Rows of `SCORES`.
        samples: By model, rows of `MODEL_SAMPLES`.
        order: Models in the order in which they are shown.
    """

    def __init__(self, scores: Iterable[Row], samples: Mapping[str, pl.DataFrame], order: Sequence[str]) -> None:
        self.points: dict[Model, dict[str, float]] = {}
        self.types: dict[str, str] = {}
        for row in scores:
            self.points.setdefault((row["model"], row["dimension"]), {})[row["task"]] = row["score"]
            self.types[row["task"]] = row["type"]
        # A model's largest dimension comes first, as in every table.
        self.models = sorted(self.points, key=lambda model: (order.index(model[0]), -model[1]))
        self.resampled = resample(samples, self.points)

    @classmethod
    def of(cls, scores: Iterable[ModelScores]) -> Scoreboard:
        """The scores of several artefacts, in their order."""
        read = list(scores)
        rows = pl.concat(each.rows() for each in read)
        samples = pl.concat(each.samples() for each in read)
        order = rows["model"].unique(maintain_order=True).to_list()
        return cls(rows.to_dicts(), {name: samples.filter(pl.col("model") == name) for name in order}, order)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Tasks by type, in the order in which the types appear, and all of them as `mean`."""
        groups: dict[str, list[str]] = {}
        for task, kind in self.types.items():
            groups.setdefault(kind, []).append(task)
        return {**groups, ALL_TASKS: list(self.types)}

    def full(self, name: str) -> Model:
        """A model at its largest dimension."""
        return max((model for model in self.points if model[0] == name), key=lambda model: model[1])

    def has(self, name: str) -> bool:
        """Whether a model was scored."""
        return any(model == name for model, _ in self.points)

    def mean(self, model: Model, tasks: Sequence[str]) -> float:
        """Mean score of a model on some tasks."""
        return sum(self.points[model][task] for task in tasks) / len(tasks)

    def resampled_means(self, model: Model, tasks: Sequence[str]) -> np.ndarray:
        """`[R]`: mean score on some tasks, of each resample."""
        return np.mean([self.resampled[model][task] for task in tasks], axis=0)

    def ratio(self, part: Model, whole: Model, tasks: Sequence[str]) -> Figure:
        """One model's mean as a share of another's, with its interval; None where the other's may not be above 0.

        Args:
            part: The numerator's model.
            whole: The denominator's.
            tasks: Names of tasks that both have.

        Returns:
            A share, 1 where both are equally good.
        """
        below, below_R = self.mean(whole, tasks), self.resampled_means(whole, tasks)
        # Correlations may be negative: a share of what may not be above 0 has no meaning.
        if below <= 0 or (below_R <= 0).any():
            return Figure(value=None, interval=None)
        # The ratio of the means, not the mean of the ratios: a task with a score near 0 would dominate the latter.
        shares_R = self.resampled_means(part, tasks) / below_R
        return Figure(value=round(self.mean(part, tasks) / below, 6), interval=interval(shares_R))

    def difference(self, model: Model, other: Model, tasks: Sequence[str]) -> Difference:
        """How many points of 100 a model's mean is above another's, with its interval.

        Args:
            model: Name and dimension.
            other: That it is compared with.
            tasks: Names of tasks that both have.
        """
        points = 100 * (self.mean(model, tasks) - self.mean(other, tasks))
        points_R = 100 * (self.resampled_means(model, tasks) - self.resampled_means(other, tasks))
        return Difference(value=round(points, 6), interval=interval(points_R))


def summarise(recipe: str, seed: int, board: Scoreboard, order: Sequence[str]) -> Summary:
    """Compare the models of a recipe.

    Args:
        recipe: Name of the recipe.
        seed: Of the recipe.
        board: The scores.
        order: Models in the order in which they are shown; the last is the student.

    Returns:
        Models, retention and gain. Retention compares the student at its largest dimension with the teachers and their
        concatenation, the gain with the base model. Intervals are of 95%, by resampling.
    """
    groups, student = board.groups, board.full(order[-1])
    references = [name for name in order if name.startswith(teacher_model("")) or name == CONCATENATION]
    return Summary(
        recipe=recipe,
        seed=seed,
        task_types=board.types,
        # The board also has variants and seeds, which have tables of their own.
        models=tuple(_model(board, model) for model in board.models if model[0] in order),
        retention={
            name: {kind: board.ratio(student, board.full(name), tasks) for kind, tasks in groups.items()}
            for name in references
        },
        gain=board.difference(student, board.full(BASE_MODEL), groups[ALL_TASKS]),
    )


def _model(board: Scoreboard, model: Model) -> ModelSummary:
    groups = board.groups
    by_type = {kind: round(board.mean(model, tasks), 6) for kind, tasks in groups.items() if kind != ALL_TASKS}
    return ModelSummary(
        name=model[0],
        dimension=model[1],
        scores=board.points[model],
        types=by_type,
        mean=round(board.mean(model, groups[ALL_TASKS]), 6),
        interval=interval(board.resampled_means(model, groups[ALL_TASKS])),
        # As leaderboards do: types with many tasks count no more than others.
        mean_of_types=round(sum(by_type.values()) / len(by_type), 6),
    )
