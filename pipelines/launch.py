"""Materialising steps through Dagster in this process, with the same instance as the UI."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError

from stella_assets.core.errors import UserError
from stella_assets.core.processes import is_alive, note_process
from stella_assets.core.runner import Runner
from stella_assets.core.step import Step
from stella_assets.pipelines.asset_factory import asset_key, materialization
from stella_assets.pipelines.console_log import console_logger
from stella_assets.pipelines.definitions import build_definitions, job_name, study_job_name
from stella_assets.pipelines.instance import open_instance
from stella_assets.pipelines.outcome import Outcome, outcome_of
from stella_assets.pipelines.selection import Selection, select_steps, unlinked
from stella_assets.pipelines.study import STUDY_RUNS, partitions_name
from stella_assets.recipe import Graph
from stella_assets.study import STUDY_ASSET
from stella_assets.study.variants import Variant

# Runs in this process have no run launcher that Dagster could ask, so their tags say where they live.
PROCESS_TAG = "stella/process"
HOST_TAG = "stella/host"
PARENT_TAG = "stella/parent_run"


class FailedCheckError(UserError):
    """A blocking check failed, so a step that was asked for was not made."""


@dataclass(frozen=True)
class Launch:
    """Starts runs of a recipe in this process.

    Attributes:
        graph: Of the recipe.
        runner: Makes the artefacts.
        instance: Keeps runs and events.
        handler: Shows what steps say to people; None for Dagster's own log.
        parent: The run that starts these runs, if any.
    """

    graph: Graph
    runner: Runner
    instance: dg.DagsterInstance
    handler: logging.Handler | None = None
    parent: str = ""

    def materialise(self, selection: Selection) -> Outcome:
        """Run the steps of a selection that have to be executed, if any, and link the others.

        Args:
            selection: As `select_steps` gives it, for the same runner.

        Returns:
            How the run ended; its `run_id` is empty where no run was started.
        """
        self._link(selection)
        # A run without steps would be an empty line in the UI for each call.
        if not selection.executed:
            return Outcome("", succeeded=True)
        return outcome_of(self._run(selection, raise_on_error=False))

    def make_all(self, *wanted: Step[Any]) -> None:
        """Make steps and everything that they depend on, in one run; no run is started where nothing is missing.

        Args:
            wanted: The steps.

        Raises:
            FailedCheckError: A blocking check failed before one of the steps.
            Exception: What a step raised.
        """
        selection = select_steps(wanted, self.runner)
        self._link(selection)
        if not selection.executed:
            return
        try:
            self._run(selection, raise_on_error=True)
        except dg.Failure as failure:
            # A step's own error, as without Dagster, so that the caller handles both ways alike.
            raise failure.__cause__ or failure from None
        except DagsterAssetCheckFailedError as failed:
            # A step that was asked for and failed its own check was made: its verdict is what the caller reads.
            missing = [step.name for step in wanted if self.runner.find(step) is None]
            if missing:
                raise FailedCheckError(
                    f"{self.graph.recipe.name}: {missing[0]} was not made, because a blocking check failed.",
                    "The UI and the log of the run name the check.",
                ) from failed

    def study(self, variant: Variant) -> Outcome:
        """Run a variant, as a partition of the recipe's study.

        Args:
            variant: Its name is the key of the partition.

        Returns:
            How the run ended; failures name the variant.
        """
        # A partition that exists stays as it is.
        self.instance.add_dynamic_partitions(partitions_name(self.graph.recipe), [variant.name])
        job = study_job_name(self.graph.recipe, STUDY_RUNS)
        outcome = outcome_of(self._execute(job, raise_on_error=False, partition_key=variant.name))
        failures = tuple(replace(each, asset=f"{variant.name}, {each.asset}") for each in outcome.failures)
        return replace(outcome, failures=failures)

    def compare_study(self) -> Outcome:
        """Compare all variants that were ever run."""
        return outcome_of(self._execute(study_job_name(self.graph.recipe, STUDY_ASSET), raise_on_error=False))

    def _link(self, selection: Selection) -> None:
        """Link the artefacts that no run executes, and show in the UI those that the recipe did not have."""
        for step in unlinked(selection, self.runner):
            self.runner.link(step)
            artefact = self.runner.require(step)
            self.instance.report_runless_asset_event(materialization(step, artefact))

    def _run(self, selection: Selection, *, raise_on_error: bool) -> dg.ExecuteInProcessResult:
        recipe = self.graph.recipe
        keys = [asset_key(recipe.name, step.name) for step in selection.executed]
        return self._execute(job_name(recipe), raise_on_error=raise_on_error, asset_selection=keys)

    def _execute(self, job: str, *, raise_on_error: bool, **what: Any) -> dg.ExecuteInProcessResult:
        loggers = {"console": console_logger(self.handler)} if self.handler else None
        # Of this recipe alone: a broken file elsewhere in recipes/ must not stop it.
        definitions = build_definitions([self.graph], self.runner.workspace, self.runner, loggers)
        return definitions.resolve_job_def(job).execute_in_process(
            run_config={"loggers": {"console": {}}} if loggers else None,
            instance=self.instance,
            raise_on_error=raise_on_error,
            tags=self._tags(),
            **what,
        )

    def _tags(self) -> dict[str, str]:
        tags = {PROCESS_TAG: note_process(), HOST_TAG: socket.gethostname()}
        return tags | ({PARENT_TAG: self.parent} if self.parent else {})


def close_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process on this machine is gone, e.g. after `kill -9`.

    Args:
        instance: Keeps runs and events.

    Returns:
        Their ids. The next run continues where they stopped.
    """
    # Of this machine only: nothing is known of processes of another one that shares the database.
    running = instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={HOST_TAG: socket.gethostname()})
    )
    dead = [run for run in running if not is_alive(run.tags.get(PROCESS_TAG, ""))]
    for run in dead:
        # Its places in pools would stay taken, and the next run would wait for them forever.
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        instance.report_run_failed(
            run, f"Process {run.tags[PROCESS_TAG]} is gone; run again to continue where it stopped."
        )
    return [run.run_id for run in dead]


@contextmanager
def watched(graph: Graph, runner: Runner, handler: logging.Handler) -> Iterator[Launch]:
    """Runs that a person watches, after runs of dead processes were closed.

    Args:
        graph: Of the recipe.
        runner: Makes the artefacts.
        handler: Shows what steps say.

    Yields:
        What starts the runs.

    Raises:
        EnvironmentVariableError: `STELLA_POSTGRES` is set and cannot be used.

    Example:
        >>> with watched(graph, runner, PeopleHandler()) as launch:
        ...     outcome = launch.materialise(select_steps(graph.steps, runner))
    """
    with open_instance(runner.workspace) as instance:
        for run_id in close_dead_runs(instance):
            runner.log.info(f"Run {run_id[:8]} was killed; continuing where it stopped.")
        yield Launch(graph, runner, instance, handler)
