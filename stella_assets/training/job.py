"""A stage as a job for other processes: what it needs on disk, and what comes back.

    python -m stella_assets.training.job JOB.json
    accelerate launch --num_processes 2 -m stella_assets.training.job JOB.json

The run that asks for the job waits for it. Should the run die, the processes of the job see it and end themselves.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from storage.workspace import Workspace

from stella_assets.core.devices import processes
from stella_assets.core.manifest import Check, Manifest
from stella_assets.core.processes import is_alive, note_process
from stella_assets.core.step import Artefact, BuildContext, Result
from stella_assets.recipe import Recipe
from storage.artefacts import MANIFEST, write_atomically

MODULE = "stella_assets.training.job"
JOB, RESULT = "job.json", "result.json"
LOOK_EVERY = 1.0


class JobError(ValueError):
    """A job that could not be done; the message is the job's own."""


def run_as_job(recipe: Recipe, number: int, context: BuildContext, launch: Callable[[Sequence[str]], None]) -> Result:
    """Train a stage in other processes.

    Args:
        recipe: The recipe.
        number: Of the stage, counting from 1.
        context: Where the stage reads and writes.
        launch: Runs Python with these arguments, in one process or several, and waits for it.

    Raises:
        JobError: The job refused its input or diverged; the message says why.
    """
    path, result = context.scratch / JOB, context.scratch / RESULT
    result.unlink(missing_ok=True)
    job = {
        "recipe": recipe.model_dump(mode="json"),
        "recipe_folder": str(recipe.student.resolve(".")),
        "number": number,
        "workspace": {"root": str(context.workspace.root), "vectors_uri": context.workspace.vectors_uri},
        "key": context.key,
        "folder": str(context.folder),
        "scratch": str(context.scratch),
        "inputs": {name: str(artefact.folder) for name, artefact in context.inputs.items()},
        "run": note_process(),
    }
    write_atomically(path, json.dumps(job, indent=1))
    try:
        launch(["-m", MODULE, str(path)])
    finally:
        answer = json.loads(result.read_text()) if result.exists() else {}
        if "refused" in answer:
            raise JobError(answer["refused"])
    return Result(
        answer["metrics"], tuple(Check(**check) for check in answer["checks"]), tuple(answer["unhashed_files"])
    )


def main(path: Path) -> None:
    """Do the job that a file describes, and leave the result beside it."""
    from stella_assets.training.stages import train_here

    job = json.loads(path.read_text(encoding="utf-8"))
    _die_with(job["run"])
    recipe = Recipe.model_validate(job["recipe"], context={"folder": Path(job["recipe_folder"])})
    inputs = {name: _artefact(name, Path(folder)) for name, folder in job["inputs"].items()}
    workspace = Workspace(Path(job["workspace"]["root"]), job["workspace"]["vectors_uri"])
    folder, scratch = Path(job["folder"]), Path(job["scratch"])
    with ExitStack() as stack:
        log = _logger(stack)
        context = BuildContext(recipe.name, job["key"], folder, scratch, inputs, workspace, log)
        try:
            result = train_here(recipe, job["number"], context)
            answer: dict[str, Any] = {
                "metrics": dict(result.metrics),
                "checks": [asdict(check) for check in result.checks],
                "unhashed_files": list(result.unhashed_files),
            }
        except ValueError as refused:
            answer = {"refused": str(refused)}
        if processes().is_main_process:
            write_atomically(scratch / RESULT, json.dumps(answer))
    if "refused" in answer:
        sys.exit(2)


def _artefact(name: str, folder: Path) -> Artefact:
    return Artefact(name, folder, Manifest.read(folder / MANIFEST))


def _logger(stack: ExitStack) -> Any:
    """The log of the Dagster run that launched us, else standard error."""
    from dagster_pipes import PipesEnvVarParamsLoader, open_dagster_pipes

    if PipesEnvVarParamsLoader().is_dagster_pipes_process() and processes().is_main_process:
        return stack.enter_context(open_dagster_pipes()).log
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    return logging.getLogger("stella")


def _die_with(run: str) -> None:
    """End this process when the run is gone, however it went: a killed process cannot tell its children."""

    def watch() -> None:
        while is_alive(run):
            time.sleep(LOOK_EVERY)
        os._exit(1)

    if not is_alive(run):
        sys.exit("The run that asked for this job is gone. Run the recipe again.")
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
