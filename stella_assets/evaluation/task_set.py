"""The step `evaluation_tasks`: all tasks of a recipe, their held-out data, and a table of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stella_assets.core.step import Artefact, BuildContext, Presentation, Result, Step
from stella_assets.evaluation.custom import custom_tasks
from stella_assets.evaluation.held_out import CHECK, HELD_OUT_TASKS, held_out_tasks, probe_texts, write_held_out
from stella_assets.evaluation.local_data import TaskDataError
from stella_assets.evaluation.official import official_tasks, require_same_part
from stella_assets.evaluation.settings import HELD_OUT, EvaluationSettings
from stella_assets.evaluation.tables import TASKS
from stella_assets.evaluation.tasks import EvaluationTask
from stella_assets.storage.polars import pl
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    from stella_assets.corpus.pairs import PairTables
    from stella_assets.corpus.read import CorpusTexts

CODE_VERSION = "3"
PAIRS_CODE_VERSION = "4"
"""Of tasks that ask the queries of pairs."""
BETWEEN_BENCHMARKS = "; "
PROBE_FILE = "probe.parquet"
MTEB = "[mteb](https://github.com/embeddings-benchmark/mteb)"


@dataclass(frozen=True)
class TaskSet:
    """The tasks of a recipe, as the artefact `evaluation_tasks` has recorded them.

    Attributes:
        folder: Of the artefact.
        evaluation: The settings.
    """

    folder: Path
    evaluation: EvaluationSettings

    def open(self) -> list[EvaluationTask]:
        """The tasks, without data.

        Raises:
            TaskDataError: The files of a task have changed since the artefact was made.
        """
        recorded = {row["task"]: row["revision"] for row in self.rows()}
        tasks = list_tasks(self.evaluation, self.folder)
        for task in tasks:
            # Digests of unchanged files are cached, so this costs no second reading of the data.
            if (now := task.revision()) != recorded[task.name]:
                raise TaskDataError(
                    f"{task.place or 'mteb'}: the data of {task.name} changed during the run (from "
                    f"{recorded[task.name]} to {now}).",
                    "Run again.",
                )
        return tasks

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `TASKS`."""
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / TASKS.file).to_pylist()

    def probe_texts(self) -> list[str]:
        """Texts to measure the speed of models and to calibrate quantizations with; none without a corpus."""
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / PROBE_FILE).column("text").to_pylist()


def tasks_step(
    recipe: str,
    *,
    evaluation: EvaluationSettings,
    corpus: Step[CorpusTexts] | None,
    pairs: Step[PairTables] | None = None,
) -> Step[TaskSet]:
    """The step `evaluation_tasks`.

    Args:
        recipe: Name of the recipe.
        evaluation: The settings.
        corpus: The texts that held-out tasks are made from; None where only mteb's own tasks are asked for.
        pairs: Of the corpus, whose test queries the held-out tasks then ask; None where it has none.

    Returns:
        A step whose artefact reads as a `TaskSet`.
    """
    held_out = HELD_OUT in evaluation.tasks
    dependencies = (corpus, pairs if held_out else None)

    def external_versions(_workspace: Workspace) -> dict[str, str]:
        # Held-out tasks are made from the corpus, which is a dependency: they need no version of their own.
        return {task.name: task.revision() for task in list_tasks(evaluation, None)}

    def read(artefact: Artefact, _workspace: Workspace) -> TaskSet:
        return TaskSet(artefact.folder, evaluation)

    return Step(
        recipe=recipe,
        name="evaluation_tasks",
        code_version=PAIRS_CODE_VERSION if held_out and pairs else CODE_VERSION,
        settings={
            "held_out": evaluation.held_out.settings() if held_out else None,
            "tasks": list(evaluation.tasks),
            # Without the path: the content counts, by the external versions, and not where it lies.
            "custom_tasks": [task.settings("path") for task in evaluation.custom_tasks],
            "splits": {name: {k: list(v) for k, v in splits.items()} for name, splits in evaluation.splits.items()},
        },
        dependencies=tuple(step for step in dependencies if step is not None),
        external_versions=external_versions,
        read=read,
        build=partial(_write_tasks, evaluation, corpus, pairs),
        # All scores wait for this short step, so it runs before longer ones that are ready as well.
        priority=1,
        presentation=Presentation(
            group="evaluation",
            description=f"{MTEB} tasks that every model is scored on, with the data of the held-out ones.",
            kinds=frozenset({"parquet"}),
            checks=(CHECK,) if held_out else (),
        ),
    )


def _write_tasks(
    evaluation: EvaluationSettings,
    corpus: Step[CorpusTexts] | None,
    pairs: Step[PairTables] | None,
    context: BuildContext,
) -> Result:
    checks, probe = [], []
    if corpus is not None:
        texts = context.read(corpus)
        if HELD_OUT in evaluation.tasks:
            asked = context.read(pairs) if pairs else None
            checks.append(write_held_out(evaluation.held_out, texts, context.folder, context.log, asked))
        probe = probe_texts(texts)
    pl.DataFrame({"text": probe}, schema={"text": pl.String}).write_parquet(context.folder / PROBE_FILE)
    rows = []
    for task in list_tasks(evaluation, context.folder):
        for part in task.scored_parts():
            part.load()  # unusable rows stop the run here, before hours of encoding
        rows.append(
            {
                "task": task.name,
                "type": task.type,
                "metric": task.task.metadata.main_score,
                "data": task.origin,
                "revision": task.revision(),
                "benchmarks": BETWEEN_BENCHMARKS.join(task.benchmarks),
            }
        )
    TASKS.write(context.folder, rows)
    return Result(metrics={"tasks": [row["task"] for row in rows]}, checks=tuple(checks))


def list_tasks(evaluation: EvaluationSettings, held_out: Path | None) -> list[EvaluationTask]:
    """The tasks in the recipe's order, without data.

    Args:
        evaluation: The settings.
        held_out: The folder with the data of the held-out tasks; without it they are left out.

    Raises:
        TaskDataError: mteb has no such task, or `evaluation.data` does not contain it.
    """
    found: dict[str, EvaluationTask] = {}
    for name in evaluation.tasks:
        if name == HELD_OUT:
            listed = held_out_tasks(held_out) if held_out else []
        else:
            listed = list(official_tasks(name, evaluation))
        for task in listed:
            known = found.get(task.name)
            if known is None:
                found[task.name] = task
            # Benchmarks share tasks. Each is scored once, and its score counts in all of them.
            elif task.benchmarks != known.benchmarks:
                require_same_part(known, task)
                found[task.name] = known.in_benchmarks((*known.benchmarks, *task.benchmarks))
    found |= {task.name: task for task in custom_tasks(evaluation, found)}
    # Held-out tasks are not listed before the corpus exists, but their names may be used.
    known_names = [*found, *(task.name for task in HELD_OUT_TASKS.values())]
    if unknown := [name for name in evaluation.splits if name not in known_names]:
        raise TaskDataError(
            f"evaluation.splits: there is no task {unknown[0]!r}.", f"The tasks are {', '.join(found)}."
        )
    return list(found.values())


def check_tasks(evaluation: EvaluationSettings) -> list[EvaluationTask]:
    """List the tasks, and check the columns of local files without reading their rows.

    Args:
        evaluation: The settings.

    Returns:
        The tasks without the held-out ones, which do not exist before a run.

    Raises:
        TaskDataError: A task is unknown, or a file is missing, is not a Parquet file or lacks a column.
    """
    tasks = list_tasks(evaluation, None)
    for task in tasks:
        for part in task.scored_parts():
            part.check_files()
    return tasks
