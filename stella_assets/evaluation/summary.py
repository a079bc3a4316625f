"""What the scores say: means, retention of each teacher, gain over the untouched student. Plain JSON, no prose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stella_assets.recipe import Recipe

Row = Mapping[str, Any]


def summarise(recipe: Recipe, scores: Iterable[Row], order: list[str]) -> dict[str, Any]:
    """Put the scores of all models together.

    Args:
        recipe: Whose scores they are.
        scores: Rows of `scores.parquet`.
        order: Models in the order in which they are shown.

    Returns:
        `{"recipe", "seed", "models": [{"name", "dimension", "scores", "mean"}], "retention", "gain", "task_types"}`.
        `retention[reference][task type or "mean"]` is the last stage's score at the teachers' dimension as a share of
        the reference's; `gain` is its mean less the untouched student's, in points of 100.
    """
    grouped: dict[tuple[str, int], dict[str, float]] = {}
    types = {}
    for row in scores:
        grouped.setdefault((row["model"], row["dimension"]), {})[row["task"]] = row["score"]
        types[row["task"]] = row["type"]
    models: list[dict[str, Any]] = [
        {"name": name, "dimension": dim, "scores": tasks, "mean": round(sum(tasks.values()) / len(tasks), 6)}
        for (name, dim), tasks in sorted(grouped.items(), key=lambda item: (order.index(item[0][0]), -item[0][1]))
    ]
    full = at_full_dimension(models)
    student = full[order[-1]]
    references = [name for name in order if name.startswith("teacher/") or name == "concatenation"]
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "task_types": types,
        "models": models,
        "retention": {name: _retention(student, full[name], types) for name in references},
        "gain": round(100 * (student["mean"] - full["untouched_student"]["mean"]), 2),
    }


def at_full_dimension(models: Iterable[Row]) -> dict[str, Row]:
    """Each model at its largest dimension, by name."""
    return {model["name"]: model for model in sorted(models, key=lambda model: model["dimension"])}


def _retention(student: Row, reference: Row, types: Mapping[str, str]) -> dict[str, float]:
    by_type: dict[str, list[str]] = {}
    for task, kind in types.items():
        by_type.setdefault(kind, []).append(task)
    shares = {
        kind: _share(sum(student["scores"][t] for t in tasks), sum(reference["scores"][t] for t in tasks))
        for kind, tasks in by_type.items()
    }
    return shares | {"mean": _share(student["mean"], reference["mean"])}


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0
