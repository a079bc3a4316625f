"""Custom tasks: the recipe's own, from local files."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from stella_assets.evaluation.local_data import TaskDataError
from stella_assets.evaluation.settings import EvaluationSettings
from stella_assets.evaluation.tasks import EvaluationTask


def custom_tasks(evaluation: EvaluationSettings, taken: Collection[str]) -> Iterator[EvaluationTask]:
    """The tasks of `evaluation.custom_tasks`.

    Args:
        evaluation: The settings.
        taken: Names of the tasks in `evaluation.tasks`.

    Yields:
        Each task without data, in the order of the recipe.

    Raises:
        TaskDataError: A custom task has the name of one of mteb's tasks in the recipe.
    """
    for custom in evaluation.custom_tasks:
        # Scores, samples and files are found by the task's name, so two tasks must not share one.
        if custom.name in taken:
            raise TaskDataError(
                f"evaluation.custom_tasks: {custom.name!r} is one of mteb's tasks in `tasks`.", "Choose another name."
            )
        yield EvaluationTask(
            custom.new_task(custom.name, f"A custom task, {custom.kind}.", custom.instruction),
            "custom",
            custom.resolve(custom.path),
            reads_files=True,
            splits=evaluation.splits.get(custom.name, {}),
        )
