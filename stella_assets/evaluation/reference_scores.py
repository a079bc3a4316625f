"""Public scores of other models, to stand beside the recipe's on the same tasks.

`reference_scores.csv` has what mteb's public results say of MTEB(eng, v1) and MTEB(eng, v2), a row a model and task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

COLUMNS = ("model", "task", "score")


class PublishedError(ValueError):
    """A file of public scores that cannot be read."""


def read_published(path: Path | None) -> pl.DataFrame:
    """Rows of model, task and score, in [-1, 1]; without a path, those that come with this package.

    Raises:
        PublishedError: There is no such file, or it lacks a column.
    """
    shipped = files(__package__).joinpath("reference_scores.csv")
    try:
        frame = pl.read_csv(path) if path else pl.read_csv(shipped.read_bytes())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise PublishedError(
            f"evaluation.reference_scores: {path} cannot be read as CSV ({error}). Correct the path."
        ) from None
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise PublishedError(
            f"{path}: has no column `{missing[0]}`; `evaluation.reference_scores` needs {', '.join(COLUMNS)}, a row a model "
            "and task, with scores from 0 to 1."
        )
    if not frame["score"].is_between(-1, 1).all():
        raise PublishedError(f"{path}: has scores outside of -1 to 1. Divide them by 100.")
    return frame.select(COLUMNS)


def compare(
    published: pl.DataFrame, own: Mapping[str, Mapping[str, float]], types: Mapping[str, str]
) -> dict[str, Any] | None:
    """Public models beside the recipe's, on the tasks of the recipe that most public models have.

    Args:
        published: Rows of model, task and score.
        own: Scores by task of the recipe's models, on official tasks.
        types: Task type by official task.

    Returns:
        `{"tasks", "models": [{"name", "own", "types", "mean"}]}`, best first; None where there is nothing to compare.
    """
    known = published.filter(pl.col("task").is_in(list(types)))
    if known.is_empty():
        return None
    counts: dict[str, int] = dict(known.group_by("task").len().sort("task").iter_rows())
    tasks = [task for task, count in counts.items() if count >= max(counts.values()) / 2]
    by_model: dict[str, dict[str, float]] = {}
    for model, task, score in known.filter(pl.col("task").is_in(tasks)).iter_rows():
        by_model.setdefault(model, {})[task] = score
    models = [
        _row(name, scores, tasks, types, own=False) for name, scores in by_model.items() if len(scores) == len(tasks)
    ]
    models += [_row(name, scores, tasks, types, own=True) for name, scores in own.items()]
    return {"tasks": tasks, "models": sorted(models, key=lambda model: -model["mean"])}


def _row(
    name: str, scores: Mapping[str, float], tasks: Sequence[str], types: Mapping[str, str], *, own: bool
) -> dict[str, Any]:
    kinds = dict.fromkeys(types[task] for task in tasks)
    of_kind = {kind: [scores[task] for task in tasks if types[task] == kind] for kind in kinds}
    return {
        "name": name,
        "own": own,
        "types": {kind: round(sum(values) / len(values), 6) for kind, values in of_kind.items()},
        "mean": round(sum(scores[task] for task in tasks) / len(tasks), 6),
    }
