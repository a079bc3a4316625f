"""What scoring all models of the demo costs, against scoring one as mteb does it.

python -m benchmarks.evaluation [--workspace var]

In one process, nothing cached: mteb over the last stage as a `SentenceTransformer` at its largest dimension; ours over
the same; ours over the untouched student and every stage at every dimension.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from storage.workspace import Workspace

from benchmarks import write_row
from stella_assets.core.step import BuildContext, Runner
from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
from stella_assets.evaluation.score import TaskScorer, score_steps, student_prompts
from stella_assets.evaluation.tasks import EvaluationTask, open_tasks, tasks_step
from stella_assets.recipe import Recipe, read_recipe
from stella_assets.students.dense import Student
from stella_assets.training.stages import model_folder, stage_step

REPEATS = 3


def students(recipe: Recipe, runner: Runner, workspace: Workspace, *, only_last: bool) -> Iterator[StudentEmbedder]:
    """The untouched student and every stage at every dimension, or the last stage at its largest one."""
    last = len(recipe.stages)
    if not only_last:
        yield StudentEmbedder(PooledStates(Student.initialise(recipe.student, None, seed=0), workspace), None, {})
    for number in range(last if only_last else 1, last + 1):
        stage = runner.find(stage_step(recipe, number))
        assert stage is not None, "run `stella run demo` first"
        student = Student.load(model_folder(stage), recipe.student)
        dims = student.dims if recipe.trains_matryoshka_heads(number) and not only_last else student.dims[:1]
        states = PooledStates(student, workspace)
        for dim in dims:
            yield StudentEmbedder(states, dim, student_prompts(recipe))


def ours(recipe: Recipe, runner: Runner, tasks: list[EvaluationTask], *, only_last: bool) -> float:
    """Seconds to score in an empty workspace folder."""
    with tempfile.TemporaryDirectory() as folder:
        workspace, nowhere = Workspace(Path(folder)), Path(folder)
        context = BuildContext("benchmark", "", nowhere, nowhere, {}, workspace, logging.getLogger("stella"))
        started = time.monotonic()
        embedders = list(students(recipe, runner, workspace, only_last=only_last))
        for task in tasks:
            scorer = TaskScorer(task, context)
            for embedder in embedders:
                scorer.score("student", embedder)
        return time.monotonic() - started


def mtebs(recipe: Recipe, runner: Runner, tasks: list[EvaluationTask]) -> float:
    """Seconds that mteb takes for a `SentenceTransformer` of the last stage at its largest dimension."""
    import mteb
    from sentence_transformers import SentenceTransformer

    stage = runner.find(stage_step(recipe, len(recipe.stages)))
    assert stage is not None
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        student = Student.load(model_folder(stage), recipe.student)
        student.save(saved, student.dims[0], recipe.student.prompts)
        started = time.monotonic()
        model: Any = SentenceTransformer(str(saved), device="cpu")
        for task in tasks:
            plain = task.load()
            plain.__dict__.pop("_calculate_scores", None)  # as mteb has it
            mteb.evaluate(model, plain, cache=None, co2_tracker=False, show_progress_bar=False)
        return time.monotonic() - started


def main(workspace: Annotated[Path, typer.Option(help="Where the demo was run.")] = Path("var")) -> None:
    """Time all three, three times each, in turn."""
    logging.getLogger("mteb").setLevel(logging.ERROR)
    recipe = read_recipe(Path("recipes/demo.yaml"))
    runner = Runner(Workspace(workspace.absolute()), logging.getLogger("stella"), links=False)
    artefact = runner.find(tasks_step(recipe))
    assert artefact is not None, "run `stella run demo` first"
    tasks = open_tasks(recipe, artefact)
    ours(recipe, runner, tasks, only_last=True)  # libraries load
    times: dict[str, list[float]] = {"mteb, one model": [], "ours, one model": [], "ours, all": []}
    for _ in range(REPEATS):
        times["mteb, one model"].append(mtebs(recipe, runner, tasks))
        times["ours, one model"].append(ours(recipe, runner, tasks, only_last=True))
        times["ours, all"].append(ours(recipe, runner, tasks, only_last=False))
    best = {name: round(min(seconds), 2) for name, seconds in times.items()}
    models = sum(1 for step in score_steps(recipe) if step.name.startswith(("mteb/stage", "mteb/untouched")))
    write_row(
        "evaluation",
        {
            "seconds": best,
            "models": models,
            "all_against_mteb": round(best["ours, all"] / best["mteb, one model"], 2),
            "all_against_one": round(best["ours, all"] / best["ours, one model"], 2),
        },
    )


if __name__ == "__main__":
    typer.run(main)
