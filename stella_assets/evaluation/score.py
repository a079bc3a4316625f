"""Scores: the real mteb over one model at all its dimensions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from stella_assets.evaluation.tasks import tasks_step
from stella_assets.manifest import Check
from stella_assets.models import model_digest
from stella_assets.recipe import Recipe
from stella_assets.step import Result, Step, Workbench
from stella_assets.teachers.encode import TeacherVectors, teacher_step
from stella_assets.training.stages import model_folder, stage_step
from storage.statistics import SCORES, write_table

if TYPE_CHECKING:
    from stella_assets.evaluation.encoders import Embedder

CODE_VERSION = "1"
SCORES_FILE = "scores.parquet"
DIGITS = 6
"""Scores are kept to a millionth, so that the last bits of a matrix product do not make another artefact."""

Embedders = Callable[[Workbench], "Iterator[Embedder]"]


def model_names(recipe: Recipe) -> list[str]:
    """The models that are scored, in the order in which they are shown."""
    stages = [f"stage_{number}" for number in range(1, len(recipe.stages) + 1)]
    return [*(f"teacher/{t.name}" for t in recipe.teachers), "concatenation", "untouched_student", *stages]


def score_steps(recipe: Recipe) -> list[Step]:
    """The steps `mteb/<model>`; a teacher's is `mteb/teacher_<name>`."""
    teachers = {teacher.name: teacher_step(recipe, teacher) for teacher in recipe.teachers}
    steps = [
        _score_step(recipe, f"teacher/{name}", (step,), _teacher_embedders(recipe, [name]))
        for name, step in teachers.items()
    ]
    everyone = tuple(teachers.values())
    steps.append(_score_step(recipe, "concatenation", everyone, _teacher_embedders(recipe, list(teachers))))
    steps.append(_score_step(recipe, "untouched_student", (), _untouched_embedders(recipe)))
    for number in range(1, len(recipe.stages) + 1):
        stage = stage_step(recipe, number)
        steps.append(_score_step(recipe, stage.name, (stage,), _stage_embedders(recipe, number)))
    return steps


def _score_step(recipe: Recipe, model: str, needs: tuple[Step, ...], embedders: Embedders) -> Step:
    settings: dict[str, Any] = {"model": model}
    untouched = model == "untouched_student"
    if model == "concatenation":
        settings["weights"] = [teacher.weight for teacher in recipe.teachers]
    elif untouched:
        settings["student"] = recipe.student.settings("model", "revision", "prompts", "query_prompts", "short_dims")
    elif not model.startswith("teacher/"):
        settings["query_prompt"] = recipe.student.prompts.get(recipe.evaluation.query_prompt or "", "")
    return Step(
        recipe=recipe.name,
        name=f"mteb/{model.replace('/', '_')}",
        code_version=CODE_VERSION,
        settings=settings,
        needs=(tasks_step(recipe), *needs),
        sources=lambda: {"student": model_digest(recipe.student)} if untouched else {},
        build=lambda bench: _score(model, embedders, bench),
    )


def _teacher_embedders(recipe: Recipe, names: list[str]) -> Embedders:
    def make(bench: Workbench) -> Iterator[Embedder]:
        from stella_assets.evaluation.encoders import ConcatenationEmbedder

        chosen = [teacher for teacher in recipe.teachers if teacher.name in names]
        vectors = [TeacherVectors.open(t, bench.inputs[f"teacher_vectors/{t.name}"], bench.home) for t in chosen]
        yield vectors[0] if len(vectors) == 1 else ConcatenationEmbedder(vectors)

    return make


def _untouched_embedders(recipe: Recipe) -> Embedders:
    def make(_bench: Workbench) -> Iterator[Embedder]:
        from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
        from stella_assets.training.student import Student

        # It has never seen a prompt, so it is asked without one.
        yield StudentEmbedder(PooledStates(Student.initialise(recipe.student, None, seed=0), ""), None)

    return make


def _stage_embedders(recipe: Recipe, number: int) -> Embedders:
    def make(bench: Workbench) -> Iterator[Embedder]:
        from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
        from stella_assets.training.student import Student

        student = Student.load(model_folder(bench.inputs[f"stage_{number}"]), recipe.student)
        states = PooledStates(student, recipe.student.prompts.get(recipe.evaluation.query_prompt or "", ""))
        for dim in student.dims if recipe.trains_short_heads(number) else student.dims[:1]:
            yield StudentEmbedder(states, dim)

    return make


def _score(model: str, embedders: Embedders, bench: Workbench) -> Result:
    import mteb

    from stella_assets.evaluation.encoders import MtebEncoder
    from stella_assets.evaluation.mteb_tasks import load_tasks

    logging.getLogger("mteb").setLevel(logging.ERROR)
    tasks_artefact = bench.inputs["evaluation_tasks"]
    rows: list[dict[str, Any]] = []
    views = []
    for embedder in embedders(bench):
        encoder: Any = MtebEncoder(embedder, model, bench.key)
        tasks = load_tasks(tasks_artefact)
        results = mteb.evaluate(encoder, tasks, cache=None, co2_tracker=False, show_progress_bar=False)
        for result in results.task_results:
            name = f"results/{embedder.dim}/{result.task_name}.json"
            (bench.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (bench.folder / name).write_text(json.dumps(result.model_dump(mode="json"), indent=1))
            views.append(name)
        rows += [
            _row(model, embedder.dim, task, result) for task, result in zip(tasks, results.task_results, strict=True)
        ]
        mean = sum(row["score"] for row in rows[-len(tasks) :]) / len(tasks)
        bench.log.info(f"{model} at {embedder.dim} dimensions: mean score {100 * mean:.2f}")
    write_table(bench.folder / SCORES_FILE, SCORES, rows)
    in_range = all(0 <= row["score"] <= 1 for row in rows)
    return Result(
        facts={"scores": rows, "mteb": mteb.__version__},
        checks=(Check("scores_are_in_range", in_range, "every score lies between 0 and 1"),),
        views=tuple(views),
    )


def _row(model: str, dimension: int, task: Any, result: Any) -> dict[str, Any]:
    return {
        "model": model,
        "dimension": dimension,
        "task": result.task_name,
        "type": task.metadata.type,
        "metric": task.metadata.main_score,
        "score": round(float(result.get_score()), DIGITS),
    }
