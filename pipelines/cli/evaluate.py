"""`stella evaluate`: the scores of any model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.runner import Runner
from stella_assets.core.step import Step
from stella_assets.evaluation.scores import base_model_scores_step
from stella_assets.evaluation.settings import HELD_OUT, EvaluationSettings
from stella_assets.evaluation.task_set import TaskSet, check_tasks, tasks_step
from stella_assets.pipelines.cli.console import AsJson, find_recipe, make_table, people_runner
from stella_assets.pipelines.cli.printing import note, out, print_json, say
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.recipe import Graph

SHOWN = ("task", "type", "metric", "score")


class EvaluationError(UserError):
    """A model or tasks that cannot be evaluated."""


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder, `package:NAME/FOLDER`, or a model of the hub.")
    ],
    recipe: Annotated[
        str | None, typer.Option(help="Score on the tasks of this recipe, also the held-out ones.")
    ] = None,
    tasks: Annotated[list[str] | None, typer.Option(help="Or on a task or benchmark of mteb; several times.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder with the data of `--tasks`, instead of the hub.")] = None,
    revision: Annotated[str | None, typer.Option(help="The commit, for a model of the hub.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score any model of sentence-transformers with its own prompts, as the base model of a recipe is scored."""
    workspace = prepare_environment()
    source = _model(model, revision)
    runner = people_runner(workspace)
    if recipe is not None and not tasks and data is None:
        name, tasks_of = _of_recipe(recipe, runner)
    elif recipe is None and tasks:
        name, tasks_of = "evaluate", _of_mteb(tasks, data, runner)
    else:
        raise EvaluationError("evaluate: has no tasks, or two kinds of them.", "Give --recipe, or --tasks with --data.")
    # Not linked: the recipe keeps the scores of its own base model.
    step = base_model_scores_step(name, student=source, tasks=tasks_of)
    runner.make(step, link=False)
    scores = runner.read(step)
    rows = [{key: row[key] for key in SHOWN} for row in scores.rows().iter_rows(named=True)]
    mean = sum(row["score"] for row in rows) / len(rows)
    if as_json:
        print_json({"model": model, "mean": mean, "scores": rows, **scores.metrics})
        return
    shown = [row | {"score": f"{100 * row['score']:.2f}"} for row in rows]
    out.print(make_table(shown, model, right=("score",)))
    say(f"Mean: {100 * mean:.2f}")


def _model(model: str, revision: str | None) -> ModelSource:
    try:
        return ModelSource.model_validate({"model": model, "revision": revision}, context={"folder": Path.cwd()})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise EvaluationError(f"{model}: {reason}.", "Give a folder that exists, or --revision.") from None


def _of_recipe(argument: str, runner: Runner) -> tuple[str, Step[TaskSet]]:
    graph = Graph(find_recipe(argument))
    if runner.find(graph.tasks) is None:
        note(f"{graph.recipe.name}: its tasks do not exist yet. Run `stella run {argument}` first.")
        sys.exit(1)
    return graph.recipe.name, graph.tasks


def _of_mteb(names: list[str], data: Path | None, runner: Runner) -> Step[TaskSet]:
    if HELD_OUT in names:
        raise EvaluationError(f"--tasks {HELD_OUT}: these tasks are made from a recipe's corpus.", "Give --recipe.")
    evaluation = EvaluationSettings(tasks=tuple(names), data=str(data.absolute()) if data else None)
    check_tasks(evaluation)
    step = tasks_step("evaluate", evaluation=evaluation, corpus=None)
    runner.make(step, link=False)
    return step
