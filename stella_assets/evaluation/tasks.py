"""The tasks of a recipe: built from its corpus, mteb's own by name, and those that people bring; and their data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import polars as pl

from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.corpus.build import corpus_step
from stella_assets.evaluation.held_out import NAMES, probe_texts, write_held_out
from stella_assets.evaluation.local_data import Splits, TaskDataError, check_columns, content_digest, fill, locate
from stella_assets.recipe import HELD_OUT, CustomTask, Recipe
from storage.statistics import TASKS, write_table

CODE_VERSION = "2"
TASKS_FILE = "tasks.parquet"
BETWEEN_BENCHMARKS = "; "
PROBE_FILE = "probe.parquet"
CLUSTERED_TEXTS = 2500
"""Texts of each of the ten clusterings of a task of one's own."""
METRICS = {
    "sts": ("STS", "cosine_spearman"),
    "classification": ("Classification", "accuracy"),
    "clustering": ("Clustering", "v_measure"),
    "pair_classification": ("PairClassification", "max_ap"),
    "retrieval": ("Retrieval", "ndcg_at_10"),
    "reranking": ("Reranking", "map_at_1000"),
}
"""mteb's type and main score for each kind of task."""

Origin = Literal["held_out", "own", "local", "hub"]


@dataclass(frozen=True)
class EvaluationTask:
    """A task, and where its data is.

    Attributes:
        task: The instance of mteb's class, without data.
        origin: `held_out` from the corpus, `own`, or mteb's with data from a `local` folder or from the `hub`.
        kind: How local files are read: a kind of `local_data`, or "" where mteb's class reads a folder in the hub's
            layout by itself.
        place: The local file or folder.
        splits: Which of a local file's splits are read as which of mteb's.
        benchmarks: The benchmarks that have it, of those that the recipe names.
        parts: What an aggregate task is the mean of; else none.
    """

    task: Any
    origin: Origin
    kind: str = ""
    place: Path | None = None
    splits: Splits = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    parts: tuple[EvaluationTask, ...] = ()

    @property
    def name(self) -> str:
        """mteb's name of it."""
        return str(self.task.metadata.name)

    @property
    def type(self) -> str:
        """mteb's task type."""
        return str(self.task.metadata.type)

    def revision(self) -> str:
        """The hub's commit that mteb pins, or `local-` and a digest of the files."""
        if self.parts:
            return "+".join(part.revision() for part in self.parts)
        return str(self.task.metadata.revision) if self.place is None else f"local-{content_digest(self.place)[:16]}"

    def describe(self) -> dict[str, Any]:
        """What a score on it depends on, beside the model: the task, the revision of its data, and what is used."""
        return {
            "task": self.name,
            "type": self.type,
            "revision": self.revision(),
            "subsets": list(self.task.hf_subsets),
            "splits": list(self.task.eval_splits),
            "splits_of_files": {name: list(splits) for name, splits in self.splits.items()},
        }

    def load(self) -> Any:
        """The task with its data; mteb's own checks come with it.

        Raises:
            TaskDataError: The data is not there, or cannot be used.
        """
        task = fresh(self.task)
        if self.place is not None:
            dataset = {**task.metadata.dataset, "path": str(self.place), "revision": self.revision()}
            task.metadata = task.metadata.model_copy(update={"dataset": dataset})
        if self.kind:
            assert self.place is not None
            fill(task, self.place, self.kind, self.splits)
        else:
            _load_by_mteb(task)
        if hasattr(task, "_calculate_scores") and task.metadata.type == "Classification":
            task._calculate_scores = partial(_with_plain_labels, task._calculate_scores)
        return task


def fresh(task: Any) -> Any:
    """The task as if it had never been evaluated: some draw from a random stream that goes on."""
    again = copy.copy(task)
    again.rng_state, again.np_rng = copy.deepcopy((task.rng_state, task.np_rng))
    return again


def _with_plain_labels(calculate: Any, labels: Any, predicted: Any) -> Any:
    """mteb's scores of a classification, of labels as an array: scikit-learn reads a lazy column row by row, often."""
    import numpy as np

    return calculate(np.asarray(labels[:]), predicted)


def _load_by_mteb(task: Any) -> None:
    name = task.metadata.name
    try:
        task.load_data()
    except (OSError, ValueError, KeyError) as error:
        raise TaskDataError(
            f"mteb task {name}: its data cannot be loaded ({' '.join(str(error).split())[:200]}). Connect to the hub, "
            "or give a folder that holds it as `evaluation.data`."
        ) from None


def tasks_step(recipe: Recipe) -> Step:
    """The step that makes `evaluation_tasks`: the held-out data, and a table of all tasks."""
    wanted = recipe.evaluation
    held_out = HELD_OUT in wanted.tasks
    return Step(
        recipe=recipe.name,
        name="evaluation_tasks",
        code_version=CODE_VERSION,
        settings={
            "held_out": wanted.held_out.settings() if held_out else None,
            "tasks": list(wanted.tasks),
            "custom_tasks": [task.settings("path") for task in wanted.custom_tasks],
            "splits": {name: {k: list(v) for k, v in splits.items()} for name, splits in wanted.splits.items()},
        },
        needs=(corpus_step(recipe),),
        sources=lambda _workspace: {task.name: task.revision() for task in list_tasks(recipe, None)},
        build=lambda context: _write_tasks(recipe, context),
    )


def _write_tasks(recipe: Recipe, context: BuildContext) -> Result:
    checks = []
    if HELD_OUT in recipe.evaluation.tasks:
        checks.append(write_held_out(recipe.evaluation.held_out, context.inputs["corpus"], context.folder, context.log))
    pl.DataFrame({"text": probe_texts(context.inputs["corpus"])}).write_parquet(context.folder / PROBE_FILE)
    rows = []
    for task in list_tasks(recipe, context.folder):
        for part in task.parts or (task,):
            part.load()
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
    write_table(context.folder / TASKS_FILE, TASKS, rows)
    return Result(metrics={"tasks": [row["task"] for row in rows]}, checks=tuple(checks))


def open_tasks(recipe: Recipe, artefact: Artefact) -> list[EvaluationTask]:
    """The tasks whose data `evaluation_tasks` has looked at.

    Raises:
        TaskDataError: The files of a task have changed since.
    """
    import pyarrow.parquet as pq

    seen = {row["task"]: row["revision"] for row in pq.read_table(artefact.folder / TASKS_FILE).to_pylist()}
    tasks = list_tasks(recipe, artefact.folder)
    for task in tasks:
        if (now := task.revision()) != seen[task.name]:
            raise TaskDataError(
                f"{task.place}: the data of {task.name} changed during the run ({seen[task.name]} is {now} now). Run "
                "again."
            )
    return tasks


def list_tasks(recipe: Recipe, held_out: Path | None) -> list[EvaluationTask]:
    """The recipe's tasks in its order, without data; the held-out ones where their folder is given.

    Raises:
        TaskDataError: mteb has no such task, or `evaluation.data` does not hold it.
    """
    wanted = recipe.evaluation
    found: dict[str, EvaluationTask] = {}
    for name in wanted.tasks:
        if name == HELD_OUT:
            listed = _held_out_tasks(held_out) if held_out else []
        else:
            listed = list(_official_tasks(recipe, name))
        for task in listed:
            known = found.get(task.name)
            if known is None:
                found[task.name] = task
            elif task.benchmarks != known.benchmarks:
                _same_part_of_it(known, task)
                found[task.name] = _with_benchmarks(known, (*known.benchmarks, *task.benchmarks))
    for own in wanted.custom_tasks:
        if own.name in found:
            raise TaskDataError(
                f"evaluation.custom_tasks: {own.name!r} is a task of mteb's among `tasks`. Choose another name."
            )
        splits = wanted.splits.get(own.name, {})
        place = own.resolve(own.path)
        found[own.name] = EvaluationTask(_own_task(own), "own", own.kind, place, splits)
    if unknown := [name for name in wanted.splits if name not in found and name not in NAMES.values()]:
        raise TaskDataError(f"evaluation.splits: there is no task {unknown[0]!r}; there is {', '.join(found)}.")
    return list(found.values())


def check_tasks(recipe: Recipe) -> list[EvaluationTask]:
    """List the tasks, and look at the columns of local files without reading their rows.

    Raises:
        TaskDataError: A task is unknown, or a file is missing, is no Parquet or lacks a column.
    """
    tasks = list_tasks(recipe, None)
    for task in tasks:
        for part in task.parts or (task,):
            if part.kind:
                assert part.place is not None
                check_columns(part.place, part.kind)
    return tasks


def _held_out_tasks(folder: Path) -> list[EvaluationTask]:
    descriptions = {
        "retrieval": "Find a held-out text by its first sentence.",
        "classification": "Say which section of the corpus a held-out text is from.",
        "pair_classification": "Say whether a first sentence and a rest are of one held-out text.",
    }
    return [
        EvaluationTask(make_task(NAMES[kind], kind, descriptions[kind]), "held_out", kind, place)
        for kind in NAMES
        if (place := locate(folder, NAMES[kind])) is not None
    ]


def _own_task(own: CustomTask) -> Any:
    return make_task(own.name, own.kind, f"A task of one's own, {own.kind}.", own.instruction)


def make_task(name: str, kind: str, description: str, instruction: str = "") -> Any:
    """An instance of mteb's class for a kind of task, under a name of its own, without data."""
    from mteb import abstasks
    from mteb.abstasks.task_metadata import TaskMetadata

    bases = {
        "sts": abstasks.AbsTaskSTS,
        "classification": abstasks.AbsTaskClassification,
        "clustering": abstasks.AbsTaskClustering,
        "pair_classification": abstasks.AbsTaskPairClassification,
        "retrieval": abstasks.AbsTaskRetrieval,
        "reranking": abstasks.AbsTaskReranking,
    }
    mteb_type, main_score = METRICS[kind]
    metadata = TaskMetadata(
        name=name,
        description=description,
        prompt=instruction or None,
        type=cast("Any", mteb_type),
        category="t2c" if kind in ("classification", "clustering") else "t2t",
        modalities=["text"],
        dataset={"path": f"local/{name}", "revision": "local"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        license="not specified",
        annotations_creators="derived",
        sample_creation="found",
    )
    of_clustering = {"max_fraction_of_documents_to_embed": None, "max_documents_per_cluster": CLUSTERED_TEXTS}
    attributes = {"metadata": metadata, **(of_clustering if kind == "clustering" else {})}
    return type(name, (bases[kind],), attributes)()


def _official_tasks(recipe: Recipe, name: str) -> Iterator[EvaluationTask]:
    """mteb's task of a name, or those of a benchmark."""
    import mteb

    if name in {benchmark.name for benchmark in mteb.get_benchmarks()}:
        for task in mteb.get_benchmark(name).tasks:
            yield _official_task(recipe, task, (name,))
        return
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        hint = str(error.args[0]).rpartition("Did you mean")[2]
        raise TaskDataError(
            f"evaluation.tasks: mteb {mteb.__version__} has no task or benchmark {name!r}. "
            + (f"Did you mean{hint}" if hint else "See `mteb available-tasks`.")
        ) from None
    yield _official_task(recipe, task, ())


def _official_task(recipe: Recipe, task: Any, benchmarks: tuple[str, ...]) -> EvaluationTask:
    wanted = recipe.evaluation
    if task.is_aggregate:
        parts = tuple(_official_task(recipe, part, ()) for part in task.tasks)
        return EvaluationTask(task, parts[0].origin, benchmarks=benchmarks, parts=parts)
    if wanted.data is None:
        return EvaluationTask(task, "hub", benchmarks=benchmarks)
    folder, name = wanted.resolve(wanted.data), task.metadata.name
    in_hub_layout = folder / task.metadata.dataset["path"]
    if in_hub_layout.is_dir():
        return EvaluationTask(task, "local", place=in_hub_layout, benchmarks=benchmarks)
    place = locate(folder, name)
    if place is None:
        raise TaskDataError(
            f"{folder}: holds no data of mteb's task {name}: neither {name}.parquet, {name}/corpus.parquet nor "
            f"{task.metadata.dataset['path']}/. Add it, or remove the task from `evaluation.tasks`."
        )
    if len(task.hf_subsets) > 1 or task.hf_subsets != ["default"]:
        task = _as_one_subset(task)
    return EvaluationTask(task, "local", _kind_of(task), place, wanted.splits.get(name, {}), benchmarks)


def _as_one_subset(task: Any) -> Any:
    if len(task.hf_subsets) > 1:
        raise TaskDataError(
            f"evaluation.tasks: {task.metadata.name} has {len(task.hf_subsets)} subsets ({task.hf_subsets[0]}, ...); "
            f"its data must be in the hub's layout, as {task.metadata.dataset['path']}/."
        )
    again = copy.copy(task)
    again.hf_subsets = ["default"]
    return again


def _kind_of(task: Any) -> str:
    from mteb import abstasks
    from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy

    kinds: Sequence[tuple[Any, str]] = (
        (abstasks.AbsTaskSTS, "sts"),
        (abstasks.AbsTaskClassification, "classification"),
        ((abstasks.AbsTaskClustering, AbsTaskClusteringLegacy), "clustering"),
        (abstasks.AbsTaskPairClassification, "pair_classification"),
        (abstasks.AbsTaskRetrieval, "reranking" if task.metadata.type == "Reranking" else "retrieval"),
    )
    for base, kind in kinds:
        if isinstance(task, base):
            return kind
    raise TaskDataError(
        f"evaluation.tasks: {task.metadata.name} is of type {task.metadata.type}, whose data must be in the hub's "
        f"layout, as {task.metadata.dataset['path']}/ under `evaluation.data`."
    )


def _same_part_of_it(known: EvaluationTask, other: EvaluationTask) -> None:
    parts = [(task.task.hf_subsets, list(task.task.eval_splits)) for task in (known, other)]
    if parts[0] != parts[1]:
        raise TaskDataError(
            f"evaluation.tasks: {', '.join((*known.benchmarks, *other.benchmarks))} take different parts of "
            f"{known.name}. Evaluate them in recipes of their own."
        )


def _with_benchmarks(task: EvaluationTask, benchmarks: tuple[str, ...]) -> EvaluationTask:
    return EvaluationTask(task.task, task.origin, task.kind, task.place, task.splits, benchmarks, task.parts)
