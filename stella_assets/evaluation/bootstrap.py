"""Scores of resampled samples, with the same resamples for every model: how far noise moves a score or a difference.

Paired bootstrap (Efron & Tibshirani, 1993, chapter 16): each task's samples are drawn with replacement, as many as
there are, and every model is scored on the drawn ones. Noise that two models share cancels out in their difference.

Shapes: N samples of a task, R resamples.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

import numpy as np

from stella_assets.evaluation.samples import STATISTICS
from stella_assets.storage.polars import pl

# 2.5% of the resamples, 25, lie beyond each end of the interval: enough for a stable end.
RESAMPLES = 1000
LEVEL = 0.95
Model = tuple[str, int]
"""Name and dimension."""
Part = tuple[str, list[str], np.ndarray, np.ndarray]
"""Statistic, names, values and gold values of the samples of one part, subset and split of a task."""


def resample(
    samples: Mapping[str, pl.DataFrame], points: Mapping[Model, Mapping[str, float]]
) -> dict[Model, dict[str, np.ndarray]]:
    """Scores of every model on the same resamples of every task.

    Args:
        samples: By model, rows of `MODEL_SAMPLES`.
        points: By model and dimension, the score of each task. A task without samples, or whose samples are not the
            same for all models, keeps its score in all resamples: it adds no spread.

    Returns:
        `[R]` float64 by task, for each model and dimension.

    References:
        Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 16.
        Berg-Kirkpatrick, Burkett & Klein, "An Empirical Investigation of Statistical Significance in NLP", EMNLP 2012:
        paired resampling for the comparison of two systems.
    """
    # A constant is the right default: what cannot be resampled must not widen or narrow an interval.
    found = {model: {task: np.full(RESAMPLES, tasks[task]) for task in tasks} for model, tasks in points.items()}
    for task in sorted({task for tasks in points.values() for task in tasks}):
        holders = [model for model in points if task in points[model]]
        parts = {model: _parts(samples[model[0]], task, model[1]) for model in holders}
        # The pairing is only valid over identical samples. Two models differ here when one of them failed the
        # check of `samples.collect`, or when a task has sampled its texts differently.
        keys = {tuple((key, tuple(values[1])) for key, values in part.items()) for part in parts.values()}
        if len(keys) != 1 or not next(iter(keys)):
            continue
        totals = {model: np.zeros(RESAMPLES) for model in holders}
        known = list(next(iter(parts.values())))
        subsets = Counter(part for part, *_ in known)
        for key in known:
            # As in mteb's main score, the parts of an aggregate have equal weight, and in each its subsets and splits.
            weight = 1 / len(subsets) / subsets[key[0]]
            for model, scores in _of_part(f"{task} {key}", {m: part[key] for m, part in parts.items()}).items():
                totals[model] += weight * scores
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
    # The seed depends on the samples' name alone, so every model and every later run draws the same samples.
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    random = np.random.default_rng(seed)
    scores = {model: np.empty(RESAMPLES) for model in parts}
    count = len(next(iter(parts.values()))[1])
    for resample_number in range(RESAMPLES):
        # Drawn once for all models: this makes the resamples paired.
        drawn = random.integers(0, count, count)
        for model, (statistic, _, values, gold) in parts.items():
            scores[model][resample_number] = STATISTICS[statistic](values[drawn], gold[drawn])
    return scores


def interval(values_R: np.ndarray) -> tuple[float, float]:
    """The middle 95% of the resampled values: the percentile interval.

    Args:
        values_R: Scores, differences or shares of the resamples.

    Returns:
        Lower and upper end, in the unit of the values, rounded to six digits.
    """
    low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return round(float(low), 6), round(float(high), 6)
