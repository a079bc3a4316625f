"""The cost of scoring all models of the demo, compared with scoring one of them with mteb alone.

python -m benchmarks.evaluation [--workspace var]

In one process, with nothing cached: mteb with the last stage as a `SentenceTransformer` at its largest dimension; ours
with the same; ours with the base model and every stage at every dimension.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import write_row
from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext
from stella_assets.evaluation.encoders import PooledStates, StudentEmbedder
from stella_assets.evaluation.scores import student_prompts
from stella_assets.evaluation.task_scores import TaskScorer
from stella_assets.evaluation.tasks import EvaluationTask
from stella_assets.recipe import Graph, read_recipe
from stella_assets.storage.workspace import Workspace
from stella_assets.students import FULL


def students(graph: Graph, runner: Runner, workspace: Workspace, *, only_last: bool) -> Iterator[StudentEmbedder]:
    """The base model and every stage at every dimension, or the last stage at its largest one."""
    recipe, compute = graph.recipe, runner.compute
    prompts = student_prompts(recipe.student, recipe.evaluation)
    if not only_last:
        yield StudentEmbedder(PooledStates(recipe.student.initialise(None, 0, compute), workspace), None, {})
    for number, stage in enumerate(graph.stages, 1):
        if only_last and stage is not graph.stages[-1]:
            continue
        student = runner.read(stage).load(compute)
        states = PooledStates(student, workspace)
        all_heads = recipe.trains_matryoshka_heads(number) and not only_last
        for head in student.dimensions if all_heads else [FULL]:
            yield StudentEmbedder(states, head, prompts)


def ours(graph: Graph, runner: Runner, tasks: list[EvaluationTask], *, only_last: bool) -> float:
    """Seconds to score in an empty workspace."""
    with tempfile.TemporaryDirectory() as folder:
        workspace, nowhere, log = Workspace(Path(folder)), Path(folder), logging.getLogger("stella")
        context = BuildContext("", "", nowhere, nowhere, {}, workspace, log, Compute(), runner=Runner(workspace, log))
        started = time.monotonic()
        embedders = list(students(graph, runner, workspace, only_last=only_last))
        for task in tasks:
            scorer = TaskScorer("benchmark", task, context)
            for embedder in embedders:
                scorer.score("student", embedder)
        return time.monotonic() - started


def mtebs(graph: Graph, runner: Runner, tasks: list[EvaluationTask]) -> float:
    """Seconds that mteb takes for a `SentenceTransformer` of the last stage at its largest dimension."""
    import mteb
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        runner.read(graph.stages[-1]).load(runner.compute).save(saved, FULL, graph.recipe.student.prompts)
        started = time.monotonic()
        model: Any = SentenceTransformer(str(saved), device="cpu")
        for task in tasks:
            plain = task.load()
            plain.__dict__.pop("_calculate_scores", None)  # ours; mteb computes its own
            mteb.evaluate(model, plain, cache=None, co2_tracker=False, show_progress_bar=False)
        return time.monotonic() - started


def main(
    workspace: Annotated[Path, typer.Option(help="Where the recipe was run.")] = Path("var"),
    recipe: Annotated[Path, typer.Option(help="The recipe.")] = Path("recipes/demo.yaml"),
    repeats: int = 3,
) -> None:
    """Time all three, alternating."""
    logging.getLogger("mteb").setLevel(logging.ERROR)
    graph = Graph(read_recipe(recipe))
    runner = Runner(Workspace(workspace.absolute()), logging.getLogger("stella"))
    tasks = runner.read(graph.tasks).open()
    ours(graph, runner, tasks, only_last=True)  # so that libraries are loaded
    times: dict[str, list[float]] = {"mteb, one model": [], "ours, one model": [], "ours, all": []}
    for _ in range(repeats):
        times["mteb, one model"].append(mtebs(graph, runner, tasks))
        times["ours, one model"].append(ours(graph, runner, tasks, only_last=True))
        times["ours, all"].append(ours(graph, runner, tasks, only_last=False))
    best = {name: round(min(seconds), 2) for name, seconds in times.items()}
    write_row(
        "evaluation",
        {
            "seconds": best,
            "models": 1 + len(graph.stages),
            "all_over_mteb": round(best["ours, all"] / best["mteb, one model"], 2),
            "all_over_one": round(best["ours, all"] / best["ours, one model"], 2),
        },
    )


if __name__ == "__main__":
    typer.run(main)
