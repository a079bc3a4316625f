"""mteb's own tasks and benchmarks by name, with data from the hub or from a local folder."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stella_assets.corpus.evaluation_sets import tasks_named
from stella_assets.evaluation.local_data import Splits, TaskDataError, locate
from stella_assets.evaluation.settings import EvaluationSettings
from stella_assets.evaluation.tasks import EvaluationTask


def official_tasks(name: str, evaluation: EvaluationSettings) -> Iterator[EvaluationTask]:
    """mteb's task of a name, or the tasks of a benchmark.

    Args:
        name: Of a task or a benchmark.
        evaluation: Where local data is, and how its splits are read.

    Yields:
        Each task without data.

    Raises:
        TaskDataError: mteb has neither, or `evaluation.data` does not contain the task.
    """
    import mteb

    try:
        tasks = tasks_named(name)
    except KeyError as error:
        # mteb puts its suggestion into the text of the error; there is no field for it.
        hint = str(error.args[0]).partition("Did you mean")[2]
        raise TaskDataError(
            f"evaluation.tasks: mteb {mteb.__version__} has no task or benchmark {name!r}.",
            f"Did you mean{hint}" if hint else "See `mteb available-tasks` and `mteb available-benchmarks`.",
        ) from None
    # A benchmark may have one task, so the number of tasks does not tell.
    benchmarks = () if [task.metadata.name for task in tasks] == [name] else (name,)
    for task in tasks:
        yield _official_task(task, evaluation, benchmarks)


def require_same_part(known: EvaluationTask, other: EvaluationTask) -> None:
    """Make sure that two benchmarks use the same part of a task.

    Args:
        known: The task as the first benchmark defines it.
        other: As the other one does.

    Raises:
        TaskDataError: They use other subsets or splits.
    """
    # Scores are stored per task name, so a task has one definition of subsets and splits per recipe.
    parts = [(task.task.hf_subsets, list(task.task.eval_splits)) for task in (known, other)]
    if parts[0] != parts[1]:
        raise TaskDataError(
            f"evaluation.tasks: {', '.join((*known.benchmarks, *other.benchmarks))} use different parts of "
            f"{known.name}.",
            "Evaluate them in separate recipes.",
        )


def _official_task(task: Any, evaluation: EvaluationSettings, benchmarks: tuple[str, ...]) -> EvaluationTask:
    # An aggregate has no data of its own; its score is combined from its parts' scores.
    if task.is_aggregate:
        parts = tuple(_official_task(part, evaluation, ()) for part in task.tasks)
        return EvaluationTask(task, parts[0].origin, benchmarks=benchmarks, parts=parts)
    if evaluation.data is None:
        return EvaluationTask(task, "hub", benchmarks=benchmarks)
    folder = evaluation.resolve(evaluation.data)
    # A snapshot of the hub keeps `<owner>/<name>` folders, which mteb's own classes can read.
    in_hub_layout = folder / task.metadata.dataset["path"]
    if in_hub_layout.is_dir():
        return EvaluationTask(task, "local", in_hub_layout, benchmarks=benchmarks)
    found = local_task(task, _locate(folder, task), evaluation.splits.get(task.metadata.name, {}))
    return found.in_benchmarks(benchmarks)


def local_task(task: Any, place: Path, splits: Splits) -> EvaluationTask:
    """One of mteb's tasks with data from plain Parquet files.

    Args:
        task: mteb's task.
        place: The file or folder.
        splits: Which of a file's splits are read as which of mteb's.

    Returns:
        The task without data.

    Raises:
        TaskDataError: The task has several subsets, or its type is not one of the kinds.
    """
    # Plain files have no subsets, and mteb looks for the data under the subset's name.
    if task.hf_subsets != ["default"]:
        task = _as_one_subset(task)
    found = EvaluationTask(task, "local", place, reads_files=True, splits=splits)
    if found.kind is None:
        raise TaskDataError(
            f"evaluation.tasks: {task.metadata.name} is of type {task.metadata.type}.",
            f"Put its data in the hub's layout, as {task.metadata.dataset['path']}/ under `evaluation.data`.",
        )
    return found


def _locate(folder: Path, task: Any) -> Path:
    name, path = task.metadata.name, task.metadata.dataset["path"]
    place = locate(folder, name)
    if place is None:
        raise TaskDataError(
            f"{folder}: contains no data of mteb's task {name}: neither {name}.parquet, {name}/corpus.parquet nor "
            f"{path}/.",
            "Add it, or remove the task from `evaluation.tasks`.",
        )
    return place


def _as_one_subset(task: Any) -> Any:
    if len(task.hf_subsets) > 1:
        raise TaskDataError(
            f"evaluation.tasks: {task.metadata.name} has {len(task.hf_subsets)} subsets ({task.hf_subsets[0]}, ...).",
            f"Put its data in the hub's layout, as {task.metadata.dataset['path']}/ under `evaluation.data`.",
        )
    # mteb's tasks may be shared between benchmarks, so the caller's instance stays as it is.
    again = copy.copy(task)
    again.hf_subsets = ["default"]
    return again
