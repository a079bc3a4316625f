"""A training as a job for other processes.

    python -m stella_assets.training.job JOB.json
    accelerate launch --num_processes 2 -m stella_assets.training.job JOB.json

The run that starts the job waits for it. When the run dies, the processes of the job notice it and end themselves.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

from stella_assets.core.devices import Compute, processes
from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check
from stella_assets.core.processes import is_alive, note_process
from stella_assets.core.progress import progress_in
from stella_assets.core.step import Launch, Log, Result
from stella_assets.storage.files import write_atomically

MODULE = "stella_assets.training.job"
JOB, RESULT = "job.json", "result.json"
# A look costs next to nothing; a GPU that is held a second longer does no harm.
LOOK_EVERY = 1.0
"""Seconds between two looks whether the run still lives."""
REFUSED = 2
"""Exit code of a job that its user can correct."""


class JobError(UserError):
    """A job that its user can correct; message and remedy are the job's own."""


class JobInputs(Protocol):
    """What a training needs, as a dataclass of plain values that other processes on the same disks can read."""

    @property
    def scratch(self) -> Path:
        """Where the files of the job go."""

    @property
    def compute(self) -> Compute:
        """Device and threads."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Self:
        """From what `to_json` gave."""

    def run(self, log: Log) -> Result:
        """Train."""


def run_as_job(inputs: JobInputs, launch: Launch) -> Result:
    """Train in other processes.

    Args:
        inputs: What the training needs.
        launch: Runs Python with these arguments, in one process or several, and waits for it.

    Returns:
        What `run` of the inputs returned in the main process of the job.

    Raises:
        JobError: The job refused its inputs or diverged; the message says why.
    """
    path, result = inputs.scratch / JOB, inputs.scratch / RESULT
    # An interrupted run may have left one, and its refusal is not this one's.
    result.unlink(missing_ok=True)
    kind = type(inputs).__module__, type(inputs).__qualname__
    job = {"run": note_process(), "kind": kind, "inputs": inputs.to_json()}
    write_atomically(path, json.dumps(job, indent=1))
    try:
        launch(["-m", MODULE, str(path)])
    finally:  # a launcher reports that a process failed, not why: the reason of a refusal takes its place
        if result.exists() and (refused := json.loads(result.read_text(encoding="utf-8")).get("refused")):
            raise JobError(refused["message"], refused["remedy"])
    answer = json.loads(result.read_text(encoding="utf-8"))
    return Result(
        answer["metrics"], tuple(Check(**check) for check in answer["checks"]), tuple(answer["unhashed_files"])
    )


def main(path: Path) -> None:
    """Do the job that a file describes, and write the result next to it.

    A failure that its user cannot correct ends the process with its traceback, which the launcher passes on.

    Args:
        path: The file that `run_as_job` wrote.
    """
    job = json.loads(path.read_text(encoding="utf-8"))
    # First of all: torch loads for seconds, and models for minutes, in which the run may die.
    _end_with(job["run"])
    module, name = job["kind"]
    inputs = getattr(import_module(module), name).from_json(job["inputs"])
    inputs = replace(inputs, compute=_own_device(inputs.compute))
    with ExitStack() as stack:
        log = _open_log(stack, inputs.compute)
        try:
            with progress_in(log):
                result = inputs.run(log)
            answer: dict[str, Any] = {
                "metrics": dict(result.metrics),
                "checks": [asdict(check) for check in result.checks],
                "unhashed_files": list(result.unhashed_files),
            }
        except UserError as refused:
            answer = {"refused": {"message": refused.message, "remedy": refused.remedy}}
        # One writer. The exit code below ends the others: a launcher stops all processes when one fails.
        if processes(inputs.compute).is_main_process:
            write_atomically(inputs.scratch / RESULT, json.dumps(answer))
    if "refused" in answer:
        sys.exit(REFUSED)


def _own_device(compute: Compute) -> Compute:
    """The device of this process: each of several has one of its own, chosen by the launcher."""
    state = processes(compute)
    return compute if state.num_processes == 1 else replace(compute, device_name=str(state.device))


def _open_log(stack: ExitStack, compute: Compute) -> Log:
    """The log of the Dagster run that launched the job, else standard error."""
    from dagster_pipes import PipesEnvVarParamsLoader, open_dagster_pipes

    if PipesEnvVarParamsLoader().is_dagster_pipes_process() and processes(compute).is_main_process:
        return stack.enter_context(open_dagster_pipes()).log
    # A launcher passes standard error on, so people see the lines where there is no Dagster run.
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    return logging.getLogger("stella")


def _end_with(run: str) -> None:
    """End this process when the run has ended, however it did: a killed process cannot tell its children."""

    def watch() -> None:
        while is_alive(run):
            time.sleep(LOOK_EVERY)
        os._exit(1)  # `sys.exit` would end this thread alone, and training may wait for another process for ever

    if not is_alive(run):
        sys.exit("The run that started this job has ended. Run the recipe again.")
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
