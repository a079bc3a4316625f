"""Scores of resampled samples, the same resamples for every model: how far noise moves a score or a difference.

Paired bootstrap (Efron & Tibshirani, 1993, chapter 16): of each task's samples as many are drawn with replacement, and
every model is scored on those drawn. What two models have in common cancels out in their difference or ratio.

Shapes: N samples of a task, R resamples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import polars as pl

from stella_assets.evaluation.samples import STATISTICS

RESAMPLES = 1000
LEVEL = 0.95
Model = tuple[str, int]
"""Name and dimension."""
Part = tuple[str, list[str], np.ndarray, np.ndarray]
"""Statistic, names, values and gold of the samples of one part, subset and split of a task."""


def resample(
    samples: Mapping[str, pl.DataFrame], points: Mapping[Model, Mapping[str, float]]
) -> dict[Model, dict[str, np.ndarray]]:
    """Scores of every model on the same resamples of every task.

    Args:
        samples: Of each model's name, rows of `MODEL_SAMPLES`.
        points: The scores by task of each model and dimension. A task without samples, or whose samples are not the
            same for all models, keeps its score on all resamples: it adds no spread.

    Returns:
        `[R]` float64 by task, for each model and dimension.
    """
    found = {model: {task: np.full(RESAMPLES, tasks[task]) for task in tasks} for model, tasks in points.items()}
    for task in sorted({task for tasks in points.values() for task in tasks}):
        holders = [model for model in points if task in points[model]]
        parts = {model: _parts(samples[model[0]], task, model[1]) for model in holders}
        keys = {tuple((key, tuple(values[1])) for key, values in part.items()) for part in parts.values()}
        if len(keys) != 1 or not next(iter(keys)):
            continue
        totals = {model: np.zeros(RESAMPLES) for model in holders}
        for key in next(iter(parts.values())):
            for model, scores in _of_part(f"{task} {key}", {m: part[key] for m, part in parts.items()}).items():
                totals[model] += scores / len(parts[model])
        for model in holders:
            found[model][task] = totals[model]
    return found


def _parts(samples: pl.DataFrame, task: str, dimension: int) -> dict[tuple[object, ...], Part]:
    rows = samples.filter((pl.col("task") == task) & (pl.col("dimension") == dimension)).sort("sample")
    return {
        key: (group["statistic"][0], group["sample"].to_list(), group["value"].to_numpy(), group["gold"].to_numpy())
        for key, group in sorted(rows.group_by(["part", "subset", "split"], maintain_order=True))
    }


def _of_part(name: str, parts: Mapping[Model, Part]) -> dict[Model, np.ndarray]:
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    random = np.random.default_rng(seed)
    scores = {model: np.empty(RESAMPLES) for model in parts}
    count = len(next(iter(parts.values()))[1])
    for resample_number in range(RESAMPLES):
        drawn = random.integers(0, count, count)
        for model, (statistic, _, values, gold) in parts.items():
            scores[model][resample_number] = STATISTICS[statistic](values[drawn], gold[drawn])
    return scores


def interval(values_R: np.ndarray) -> tuple[float, float]:
    """The middle 95% of what resampling gave."""
    low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return round(float(low), 6), round(float(high), 6)
