"""Public scores of other models, to compare with the recipe's on the same tasks.

`reference_scores.csv` has mteb's public results on MTEB(eng, v1) and MTEB(eng, v2), one row per model and task.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from stella_assets.core.errors import UserError
from stella_assets.evaluation.summary import ReferenceModel, ReferenceSummary
from stella_assets.storage.canonical import digest
from stella_assets.storage.polars import pl

COLUMNS = ("model", "task", "score")


class ReferenceScoresError(UserError):
    """A file of public scores that cannot be read."""


def read_reference_scores(path: Path | None) -> pl.DataFrame:
    """Rows of model, task and score, in [-1, 1].

    Args:
        path: A CSV file; None for the scores that come with this package.

    Returns:
        A frame with the columns `COLUMNS`.

    Raises:
        ReferenceScoresError: There is no such file, it lacks a column, or a score is out of range.
    """
    try:
        # As text: a column with one wrong cell has no numbers, and the message names the cell.
        frame = pl.read_csv(path or _shipped(), infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ReferenceScoresError(
            f"evaluation.reference_scores: {path} cannot be read as CSV ({error}).", "Correct the path."
        ) from None
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise ReferenceScoresError(
            f"{path}: has no column `{missing[0]}`.",
            f"`evaluation.reference_scores` needs {', '.join(COLUMNS)}, one row per model and task, with scores from 0 "
            "to 1.",
        )
    scores = frame["score"].str.strip_chars().cast(pl.Float64, strict=False)
    empty = frame.select(pl.any_horizontal(pl.col("model", "task").is_null())).to_series()
    if wrong := (empty | scores.is_null() | scores.is_nan()).arg_true().to_list():
        row = frame.row(wrong[0], named=True)
        raise ReferenceScoresError(
            f"{path}: row {wrong[0] + 1} has model {row['model']!r}, task {row['task']!r} and score {row['score']!r}.",
            "Give each row a model, a task and a number, or remove it.",
        )
    frame = frame.with_columns(score=scores)
    # Leaderboards show points of 100; such a file would put every public model far above the recipe's.
    if not frame["score"].is_between(-1, 1).all():
        raise ReferenceScoresError(f"{path}: has scores outside of -1 to 1.", "Divide them by 100.")
    return frame.select(COLUMNS)


def reference_scores_digest(path: Path | None) -> str:
    """A digest of all rows.

    Args:
        path: See `read_reference_scores`, also for what it raises.
    """
    if path:
        return digest(read_reference_scores(path).to_dict(as_series=False))
    # What is shipped needs no checks, and every quick command asks for it: polars would take longer to load.
    rows = list(csv.DictReader(_shipped().decode().splitlines()))
    return digest({name: [float(row[name]) if name == "score" else row[name] for row in rows] for name in COLUMNS})


def _shipped() -> bytes:
    return files(__package__).joinpath("reference_scores.csv").read_bytes()


def compare(
    references: pl.DataFrame, own: Mapping[str, Mapping[str, float]], types: Mapping[str, str]
) -> ReferenceSummary | None:
    """Compare public models with the recipe's, on the tasks of the recipe that most public models have.

    Args:
        references: Rows of model, task and score.
        own: Scores by task of the recipe's models, on official tasks.
        types: Task type by official task.

    Returns:
        The models, best first; None where there is nothing to compare.
    """
    known = references.filter(pl.col("task").is_in(list(types)))
    if known.is_empty():
        return None
    # Sorted by name, so that the report does not depend on the order of the file.
    counts: dict[str, int] = dict(known.group_by("task").len().sort("task").iter_rows())
    # Half of the most common count: a rarely reported task must not remove nearly all public models.
    tasks = [task for task, count in counts.items() if count >= max(counts.values()) / 2]
    by_model: dict[str, dict[str, float]] = {}
    for model, task, score in known.filter(pl.col("task").is_in(tasks)).iter_rows():
        by_model.setdefault(model, {})[task] = score
    # A mean over other tasks is not comparable, so models that lack one of the tasks are left out.
    models = [
        _model(name, scores, tasks, types, own=False) for name, scores in by_model.items() if len(scores) == len(tasks)
    ]
    models += [_model(name, scores, tasks, types, own=True) for name, scores in own.items()]
    return ReferenceSummary(tasks=tuple(tasks), models=tuple(sorted(models, key=lambda model: -model.mean)))


def _model(
    name: str, scores: Mapping[str, float], tasks: Sequence[str], types: Mapping[str, str], *, own: bool
) -> ReferenceModel:
    kinds = dict.fromkeys(types[task] for task in tasks)
    of_kind = {kind: [scores[task] for task in tasks if types[task] == kind] for kind in kinds}
    return ReferenceModel(
        name=name,
        own=own,
        types={kind: round(sum(values) / len(values), 6) for kind, values in of_kind.items()},
        mean=round(sum(scores[task] for task in tasks) / len(tasks), 6),
    )
