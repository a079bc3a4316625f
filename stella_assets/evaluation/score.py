"""Scores: the real mteb over one model at all its dimensions, a task at a time."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.manifest import Check, digest
from stella_assets.core.models import model_digest
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Result, Runner, Step
from stella_assets.evaluation.tasks import PROBE_FILE, EvaluationTask, fresh, open_tasks, tasks_step
from stella_assets.recipe import Recipe
from stella_assets.teachers.encode import TeacherVectors, teacher_step
from stella_assets.training.stages import model_folder, stage_step
from storage.statistics import MODEL_SAMPLES, SAMPLES, SCORES, write_table

if TYPE_CHECKING:
    from stella_assets.evaluation.encoders import Embedder

CODE_VERSION = "2"
SCORES_FILE = "scores.parquet"
SCORE_FILE = "score.json"
SAMPLES_FILE = "samples.parquet"
RESULT_FILE = "result.json"
TASK_SCORES = "task_scores"
DIGITS = 6
"""Scores are kept to a millionth, so that the last bits of a matrix product do not make another artefact."""

Embedders = Callable[[BuildContext], "Iterator[Embedder]"]


def model_names(recipe: Recipe) -> list[str]:
    """The models that are scored, in the order in which they are shown."""
    stages = [f"stage_{number}" for number in range(1, len(recipe.stages) + 1)]
    return [*(f"teacher/{t.name}" for t in recipe.teachers), "concatenation", "base_model", *stages]


def score_steps(recipe: Recipe) -> list[Step]:
    """The steps `mteb/<model>`; a teacher's is `mteb/teacher_<name>`."""
    teachers = {teacher.name: teacher_step(recipe, teacher) for teacher in recipe.teachers}
    steps = [
        _score_step(recipe, f"teacher/{name}", (step,), _teacher_embedders(recipe, [name]))
        for name, step in teachers.items()
    ]
    everyone = tuple(teachers.values())
    steps.append(_score_step(recipe, "concatenation", everyone, _teacher_embedders(recipe, list(teachers))))
    steps.append(_score_step(recipe, "base_model", (), _untouched_embedders(recipe)))
    for number in range(1, len(recipe.stages) + 1):
        stage = stage_step(recipe, number)
        steps.append(_score_step(recipe, stage.name, (stage,), _stage_embedders(recipe, number)))
    return steps


def _score_step(recipe: Recipe, model: str, needs: tuple[Step, ...], embedders: Embedders) -> Step:
    settings: dict[str, Any] = {"model": model}
    untouched = model == "base_model"
    teachers = {teacher.name: teacher for teacher in recipe.teachers}
    if model == "concatenation":
        settings["weights"] = [teacher.weight for teacher in recipe.teachers]
        settings["prompts"] = [getattr(teacher, "evaluation_prompts", {}) for teacher in recipe.teachers]
    elif untouched:
        settings["student"] = recipe.student.settings(
            "model", "revision", "prompts", "query_prompts", "matryoshka_dims"
        )
    elif model.startswith("teacher/"):
        settings["prompts"] = getattr(teachers[model.removeprefix("teacher/")], "evaluation_prompts", {})
    else:
        settings["prompts"] = student_prompts(recipe)
    return Step(
        recipe=recipe.name,
        name=f"mteb/{model.replace('/', '_')}",
        code_version=CODE_VERSION,
        settings=settings,
        needs=(tasks_step(recipe), *needs),
        sources=lambda _workspace: {"student": model_digest(recipe.student)} if untouched else {},
        build=lambda context: score_model(recipe, [(model, embedder) for embedder in embedders(context)], context),
    )


def student_prompts(recipe: Recipe) -> dict[str, str]:
    """What is put before the texts of tasks, by mteb's keys, for a student trained with the recipe's."""
    return {key: recipe.student.prompts.get(prompt, prompt) for key, prompt in recipe.evaluation.prompts.items()}


def _teacher_embedders(recipe: Recipe, names: list[str]) -> Embedders:
    def make(context: BuildContext) -> Iterator[Embedder]:
        from stella_assets.evaluation.encoders import ConcatenationEmbedder, TeacherEmbedder

        chosen = [teacher for teacher in recipe.teachers if teacher.name in names]
        each = [
            TeacherEmbedder(
                TeacherVectors.open(teacher, context.inputs[f"teacher_vectors/{teacher.name}"], context.workspace),
                getattr(teacher, "evaluation_prompts", {}),
            )
            for teacher in chosen
        ]
        yield each[0] if len(each) == 1 else ConcatenationEmbedder(each)

    return make


def _untouched_embedders(recipe: Recipe) -> Embedders:
    def make(context: BuildContext) -> Iterator[Embedder]:
        from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
        from stella_assets.students.dense import Student

        # It has never seen a prompt, so it is asked without one.
        states = PooledStates(Student.initialise(recipe.student, None, seed=0), context.workspace)
        yield StudentEmbedder(states, None, {})

    return make


def _stage_embedders(recipe: Recipe, number: int) -> Embedders:
    def make(context: BuildContext) -> Iterator[Embedder]:
        from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
        from stella_assets.students.dense import Student

        student = Student.load(model_folder(context.inputs[f"stage_{number}"]), recipe.student)
        states = PooledStates(student, context.workspace)
        for dim in student.dims if recipe.trains_matryoshka_heads(number) else student.dims[:1]:
            yield StudentEmbedder(states, dim, student_prompts(recipe))

    return make


def score_model(recipe: Recipe, named: Sequence[tuple[str, Embedder]], context: BuildContext) -> Result:
    """Score embedders, each under the name of its model, on every task; write scores, samples and mteb's results."""
    tasks = open_tasks(recipe, context.inputs["evaluation_tasks"])
    rows: list[dict[str, Any]] = []
    samples: list[pa.Table] = []
    views = []
    several = len({model for model, _ in named}) > 1
    with progress_bar(len(tasks) * len(named), named[0][0], "scores") as bar:
        for task in tasks:
            scorer = TaskScorer(task, context)
            for model, embedder in named:
                result, row, parts = scorer.score(model, embedder)
                rows.append(row)
                samples += [_of_model(row, name, artefact) for name, artefact in parts.items()]
                view = f"results/{f'{model}/' if several else ''}{embedder.dim}/{task.name}.json"
                (context.folder / view).parent.mkdir(parents=True, exist_ok=True)
                (context.folder / view).write_text(_to_json(result), encoding="utf-8")
                views.append(view)
                bar.update(1)
    for model, embedder in named:
        scores = [row["score"] for row in rows if (row["model"], row["dimension"]) == (model, embedder.dim)]
        context.log.info(f"{model} at {embedder.dim} dimensions: mean score {100 * sum(scores) / len(scores):.2f}")
    metrics = {} if several else _size_and_speed([e for _, e in named], context.inputs["evaluation_tasks"])
    result = write_scores(rows, pa.concat_tables(samples), context)
    return replace(result, metrics={**result.metrics, **metrics}, unhashed_files=tuple(views))


def write_scores(rows: Sequence[Mapping[str, Any]], samples: pa.Table, context: BuildContext) -> Result:
    """Write rows of `SCORES` and of `MODEL_SAMPLES`, and look whether a score can be one."""
    write_table(context.folder / SCORES_FILE, SCORES, rows)
    write_table(context.folder / SAMPLES_FILE, MODEL_SAMPLES, samples)
    in_range = all(-1 <= row["score"] <= 1 for row in rows)
    shown = ("model", "dimension", "task", "type", "metric", "score")
    return Result(
        metrics={"scores": [{name: row[name] for name in shown} for row in rows], "mteb": rows[0]["mteb"]},
        checks=(Check("scores_are_in_range", in_range, "every score lies between 0 and 1, correlations above -1"),),
    )


def _size_and_speed(embedders: Sequence[Embedder], tasks: Artefact) -> dict[str, Any]:
    """Parameters by dimension, and texts a second; a teacher's are measured where its vectors are made."""
    from stella_assets.evaluation.encoders import StudentEmbedder

    students = [embedder for embedder in embedders if isinstance(embedder, StudentEmbedder)]
    if not students:
        return {}
    texts = pq.read_table(tasks.folder / PROBE_FILE).column("text").to_pylist()
    return {
        "parameters": {str(student.dim): student.parameters() for student in students},
        "texts_per_second": students[0].texts_per_second(texts),
    }


class TaskScorer:
    """Scores models on one task. A score that was made is found by all that decides it, whatever the model's name.

    Each is an artefact of its own, so a run that was killed goes on at the next task, and a task that joins the recipe
    is the only one that is scored anew.
    """

    def __init__(self, task: EvaluationTask, context: BuildContext) -> None:
        self._task = task
        self._bench = context
        self._loaded: dict[str, Any] = {}

    def score(self, model: str, embedder: Embedder) -> tuple[Any, dict[str, Any], dict[str, Artefact]]:
        """mteb's result, the row of `SCORES`, and by name the artefacts that the score comes from."""
        import mteb

        made = {part.name: self._make(part, model, embedder) for part in self._task.parts or (self._task,)}
        results = [_read_result(artefact) for artefact in made.values()]
        result = self._task.task.combine_task_results(results) if self._task.parts else results[0]
        task, loader = self._task, embedder.identity()
        prompts = _prompts(embedder, (task.parts or (task,))[0])
        row = {
            "model": model,
            "dimension": embedder.dim,
            "task": task.name,
            "type": task.type,
            "metric": task.task.metadata.main_score,
            "score": round(float(result.get_score()), DIGITS),
            "data": task.origin,
            "revision": task.revision(),
            "loader": loader.name,
            "weights": loader.weights,
            "dtype": loader.dtype,
            "max_length": loader.max_length,
            "query_prompt": prompts["query"],
            "document_prompt": prompts["document"],
            "mteb": mteb.__version__,
        }
        return result, row, made

    def _make(self, part: EvaluationTask, model: str, embedder: Embedder) -> Artefact:
        import mteb

        from stella_assets.evaluation.encoders import MtebEncoder

        identity = {
            **part.describe(),
            "loader": asdict(embedder.identity()),
            "prompts": _prompts(embedder, part),
            "dimension": embedder.dim,
            "mteb": mteb.__version__,
        }
        step = Step(
            recipe=self._bench.recipe,
            name=f"{TASK_SCORES}/{part.name}",
            code_version=CODE_VERSION,
            settings=identity,
            build=lambda context: self._evaluate(part, MtebEncoder(embedder, model, digest(identity)), context),
        )
        return Runner(self._bench.workspace, self._bench.log, links=False).make(step)

    def _evaluate(self, part: EvaluationTask, encoder: Any, context: BuildContext) -> Result:
        import datasets
        import mteb

        from stella_assets.evaluation.samples import collect, watch_queries

        logging.getLogger("mteb").setLevel(logging.ERROR)
        if part.name not in self._loaded:
            self._loaded = {part.name: part.load()}
        task = fresh(self._loaded[part.name])
        per_query = watch_queries(task)
        retrieval = hasattr(task, "task_specific_scores")
        datasets.disable_progress_bars()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The task .* is superseded")  # benchmarks name tasks of their day
            results = mteb.evaluate(
                encoder,
                task,
                cache=None,
                co2_tracker=False,
                show_progress_bar=False,
                prediction_folder=None if retrieval else folder,
            )
            result = results.task_results[0]
            statistic, rows = collect(task, result, Path(folder), per_query)
        score = {"score": round(float(result.get_score()), DIGITS), "statistic": statistic}
        (context.folder / SCORE_FILE).write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
        (context.folder / RESULT_FILE).write_text(_to_json(result), encoding="utf-8")
        samples = [{**row, "value": round(row["value"], DIGITS)} for row in rows]
        write_table(context.folder / SAMPLES_FILE, SAMPLES, samples)
        return Result(metrics=score, unhashed_files=(RESULT_FILE,))


def _prompts(embedder: Embedder, task: EvaluationTask) -> dict[str, str | None]:
    """What is put before the texts of a task, which are queries and documents, or neither."""
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.types import PromptType

    from stella_assets.evaluation.encoders import EncodeRequest

    sides: dict[str, PromptType | None] = {"query": PromptType.query, "document": PromptType.document}
    if not isinstance(task.task, AbsTaskRetrieval):
        sides = {name: getattr(task.task, f"input{i}_prompt_type", None) for i, name in enumerate(sides, 1)}
    return {name: embedder.prompt(EncodeRequest(task.task.metadata, side)) for name, side in sides.items()}


def _to_json(result: Any) -> str:
    return json.dumps(result.model_dump(mode="json"), indent=1)


def _read_result(artefact: Artefact) -> Any:
    from mteb.results import TaskResult

    return TaskResult.model_validate_json((artefact.folder / RESULT_FILE).read_text(encoding="utf-8"))


def _of_model(row: Mapping[str, Any], part: str, artefact: Artefact) -> pa.Table:
    """The samples of a single score, with the model, dimension and task that they are of."""
    samples = pq.read_table(artefact.folder / SAMPLES_FILE)
    about = {name: row[name] for name in ("model", "dimension", "task")} | {"part": part}
    about["statistic"] = artefact.manifest.metrics["statistic"]
    for name, value in about.items():
        samples = samples.append_column(name, pa.array([value] * len(samples), MODEL_SAMPLES.field(name).type))
    return samples.select(MODEL_SAMPLES.names)
