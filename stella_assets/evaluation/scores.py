"""The steps `scores/<model>`: the real mteb over one model at all its dimensions, one task at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stella_assets.core.config import ModelSource
from stella_assets.core.models import model_digest
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import BuildContext, Estimate, Result, Size, Step
from stella_assets.evaluation.forecast import estimate_teacher_scores
from stella_assets.evaluation.model_scores import ModelScores, compare_scores, present_scores, write_scores
from stella_assets.evaluation.task_scores import TaskScorer, result_json
from stella_assets.evaluation.task_set import TaskSet
from stella_assets.storage.workspace import Workspace
from stella_assets.students.base import FULL

if TYPE_CHECKING:
    from stella_assets.core.manifest import Manifest
    from stella_assets.core.runner import Runner
    from stella_assets.evaluation.encoders import Embedder, MeasuredEmbedder, StudentEmbedder
    from stella_assets.evaluation.settings import EvaluationSettings
    from stella_assets.students.base import StudentConfig
    from stella_assets.students.dense.settings import SavedStudent
    from stella_assets.teachers.kinds.base import TeacherConfig
    from stella_assets.teachers.snapshot import Snapshot
    from stella_assets.teachers.teacher_vectors import TeacherVectors

CODE_VERSION = "2"
# Of their own: other models' scores do not change with how these are loaded.
BASE_MODEL_CODE_VERSION, STUDENT_CODE_VERSION = "5", "3"
CONCATENATION, BASE_MODEL = "concatenation", "base_model"

SOURCE_KEYS = frozenset(ModelSource.model_fields)

Scores = Step[ModelScores]
Build = Callable[[BuildContext], Result]


def student_prompts(student: StudentConfig, evaluation: EvaluationSettings) -> dict[str, str]:
    """The student's prompts for tasks.

    Args:
        student: Its named prompts.
        evaluation: By mteb's keys, the name of a prompt or a text.

    Returns:
        Texts by mteb's keys.
    """
    return {key: student.prompts.get(prompt, prompt) for key, prompt in evaluation.prompts.items()}


def teacher_model(teacher: str) -> str:
    """Name of a teacher among the scored models."""
    return f"teacher/{teacher}"


def seed_model(seed: int) -> str:
    """Name of the last stage of another seed among the scored models."""
    return f"seed_{seed}"


def teacher_scores_step(
    recipe: str,
    *,
    teacher: TeacherConfig,
    vectors: Step[TeacherVectors],
    tasks: Step[TaskSet],
    evaluation: EvaluationSettings,
) -> Scores:
    """The step `scores/teacher_<name>`.

    Args:
        recipe: Name of the recipe.
        teacher: Settings of the teacher.
        vectors: Of the teacher; vectors of the tasks' texts are added to the same store.
        tasks: What it is scored on.
        evaluation: The settings of the tasks, which tell what a paid teacher costs.
    """
    model = teacher_model(teacher.name)

    def build(context: BuildContext) -> Result:
        from stella_assets.evaluation.teacher_encoders import TeacherEmbedder

        embedder = TeacherEmbedder(context.read(vectors), context.compute.on_behalf_of(recipe))
        return score_models(recipe, [(model, embedder)], context.read(tasks), context)

    settings = {"prompts": dict(teacher.task_prompts())}
    step = _scores_step(recipe, model, settings, (tasks, vectors), build)

    def estimate(_runner: Runner, last: Manifest | None, size: Size | None) -> Estimate:
        return estimate_teacher_scores(teacher, evaluation, last, size)

    # Texts of tasks cost money, too.
    return replace(step, estimate=estimate) if teacher.paid else step


def concatenation_scores_step(
    recipe: str,
    *,
    teachers: Sequence[TeacherConfig],
    vectors: Mapping[str, Step[TeacherVectors]],
    concatenation: Step[Snapshot],
    tasks: Step[TaskSet],
) -> Scores:
    """The step `scores/concatenation`: what students learn from.

    Args:
        recipe: Name of the recipe.
        teachers: Settings of the teachers, in the order of the concatenation.
        vectors: By teacher.
        concatenation: How the teachers are joined.
        tasks: What it is scored on.
    """

    def build(context: BuildContext) -> Result:
        from stella_assets.evaluation.teacher_encoders import ConcatenationEmbedder, TeacherEmbedder

        compute = context.compute.on_behalf_of(recipe)
        parts = [TeacherEmbedder(context.read(vectors[teacher.name]), compute) for teacher in teachers]
        layout = context.read(concatenation).layout.of([teacher.name for teacher in teachers])
        # One teacher's concatenation is its own vectors: with its identity, no task is scored twice.
        alone = len(parts) == 1 and layout.mean_of(layout.teachers[0]) is None
        embedder = parts[0] if alone else ConcatenationEmbedder(parts, layout)
        return score_models(recipe, [(CONCATENATION, embedder)], context.read(tasks), context)

    settings = {
        # A weight scales the teacher's part of the concatenation, and so the cosines.
        "weights": [teacher.weight for teacher in teachers],
        "prompts": [dict(teacher.task_prompts()) for teacher in teachers],
    }
    dependencies = (tasks, concatenation, *(vectors[teacher.name] for teacher in teachers))
    return _scores_step(recipe, CONCATENATION, settings, dependencies, build)


def base_model_scores_step(recipe: str, *, student: ModelSource, tasks: Step[TaskSet]) -> Scores:
    """The step `scores/base_model`: the student's base model, or any other, as its authors ship it.

    Args:
        recipe: Name of the recipe.
        student: Settings that name the model.
        tasks: What it is scored on.
    """

    def build(context: BuildContext) -> Result:
        from stella_assets.evaluation.base_model import BaseModelEmbedder

        embedder = BaseModelEmbedder(student, context.workspace, context.compute)
        return score_student(recipe, BASE_MODEL, [embedder], context.read(tasks), context)

    def external_versions(_workspace: Workspace) -> dict[str, str]:
        return {"student": model_digest(student)}

    # Of the student only what says which model it is: layers, pooling and length are the recipe's.
    source = {name: value for name, value in student.settings("model", "revision").items() if name in SOURCE_KEYS}
    return _scores_step(
        recipe, BASE_MODEL, {"source": source}, (tasks,), build, external_versions, BASE_MODEL_CODE_VERSION
    )


def stage_scores_step(
    recipe: str,
    *,
    stage: Step[SavedStudent],
    prompts: Mapping[str, str],
    all_heads: bool,
    tasks: Step[TaskSet],
    seed: int | None = None,
) -> Scores:
    """The step `scores/stage_<n>`, or `scores/seed_<seed>` for the last stage of another seed.

    Args:
        recipe: Name of the recipe.
        stage: The stage that is scored.
        prompts: For tasks, by mteb's keys.
        all_heads: Whether the Matryoshka heads are trained; else only the full head is scored.
        tasks: What it is scored on.
        seed: Of the training, where it is not the recipe's own.
    """
    # A seed has a model name of its own: with the stage's name the SQL view `scores` would list the stage twice.
    model = stage.stored_as if seed is None else seed_model(seed)

    def build(context: BuildContext) -> Result:
        embedders = stage_embedders(stage, prompts, context, all_heads=all_heads)
        return score_student(recipe, model, embedders, context.read(tasks), context)

    settings = {"prompts": dict(prompts)}
    return _scores_step(recipe, model, settings, (tasks, stage), build, code_version=STUDENT_CODE_VERSION)


def stage_embedders(
    stage: Step[SavedStudent], prompts: Mapping[str, str], context: BuildContext, *, all_heads: bool
) -> list[StudentEmbedder]:
    """A stage at its full head, or at each of its heads, the largest first."""
    from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder

    student = context.read(stage).load(context.compute)
    states = PooledStates(student, context.workspace)
    if not all_heads:
        return [StudentEmbedder(states, FULL, prompts)]
    # One head per dimension, the full one where two have it: after a stage of some teachers it has only their rows.
    heads = {dimension: name for name, dimension in reversed(student.dimensions.items())}
    return [StudentEmbedder(states, heads[dimension], prompts) for dimension in sorted(heads, reverse=True)]


def _scores_step(
    recipe: str,
    model: str,
    settings: Mapping[str, Any],
    dependencies: tuple[Step[Any], ...],
    build: Build,
    external_versions: Callable[[Workspace], Mapping[str, str]] | None = None,
    code_version: str = CODE_VERSION,
) -> Scores:
    return Step(
        recipe=recipe,
        name=f"scores/{model.replace('/', '_')}",
        code_version=code_version,
        settings={"model": model, **settings},
        dependencies=dependencies,
        external_versions=external_versions,
        read=ModelScores.read,
        build=build,
        compare=compare_scores,
        presentation=present_scores(f"`{model}` at each of its dimensions"),
    )


def score_student(
    recipe: str, model: str, embedders: Sequence[MeasuredEmbedder], tasks: TaskSet, context: BuildContext
) -> Result:
    """Score a student at some heads, and measure its size and speed. A teacher's are measured with its vectors."""
    result = score_models(recipe, [(model, embedder) for embedder in embedders], tasks, context)
    measured: dict[str, Any] = {"parameters": {str(embedder.dim): embedder.parameters() for embedder in embedders}}
    if probe := tasks.probe_texts():
        measured["texts_per_second"] = embedders[0].texts_per_second(probe)  # the encoder is the same for all heads
    return replace(result, metrics={**result.metrics, **measured})


def score_models(recipe: str, models: Sequence[tuple[str, Embedder]], tasks: TaskSet, context: BuildContext) -> Result:
    """Score embedders on every task; write scores, samples and mteb's results.

    Args:
        recipe: Name of the recipe.
        models: Embedders, each with the name of its model.
        tasks: What they are scored on.
        context: Of the step whose artefact the scores are.
    """
    rows: list[Mapping[str, Any]] = []
    samples: list[pa.Table] = []
    results = []
    # One model per artefact is the usual case; variants have several, which need folders of their own.
    several = len({model for model, _ in models}) > 1
    listed = tasks.open()
    with progress_bar(len(listed) * len(models), models[0][0], "scores") as bar:
        # Tasks outside, models inside: the data of one task is loaded once and then freed.
        for task in listed:
            scorer = TaskScorer(recipe, task, context)
            for model, embedder in models:
                score = scorer.score(model, embedder)
                rows.append(score.row)
                samples += score.samples
                file = f"results/{f'{model}/' if several else ''}{embedder.dim}/{task.name}.json"
                (context.folder / file).parent.mkdir(parents=True, exist_ok=True)
                (context.folder / file).write_text(result_json(score.result), encoding="utf-8")
                results.append(file)
                bar.update(1)
            scorer.close()  # the runner keeps the parts' steps, and they refer to the scorer
    for model, embedder in models:
        scores = [row["score"] for row in rows if (row["model"], row["dimension"]) == (model, embedder.dim)]
        context.log.info(f"{model} at {embedder.dim} dimensions: mean score {100 * sum(scores) / len(scores):.2f}")
    result = write_scores(context.folder, rows, pa.concat_tables(samples))
    return replace(result, unhashed_files=tuple(results))
