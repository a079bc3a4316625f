"""Materialising a recipe through Dagster in this process, with the same instance as the UI."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from storage.workspace import Workspace

from pipelines.definitions import build_definitions, job_name, study_job_name
from pipelines.resources import check_postgres
from stella_assets.assets import POOLS, asset_key
from stella_assets.core.processes import is_alive, note_process
from stella_assets.recipe import Recipe
from stella_assets.redistil.assets import INPUTS, REDISTILLATION
from stella_assets.study.assets import RUNS, STUDY, partitions_name
from stella_assets.study.variants import Variant
from storage.locks import file_lock

PROCESS_TAG = "stella/process"
HOST_TAG = "stella/host"


class UnknownAssetError(ValueError):
    """A selection that names no asset of the recipe."""


class PoolError(ValueError):
    """A limit of a pool that cannot be."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: The run in the UI.
        succeeded: Whether every asset is there.
        failures: (asset, message) of what failed.
        users_fault: Whether all failures are of the kind that a person can correct.
        failed_checks: (asset, check, what was found) of the checks that did not pass.
    """

    run_id: str
    succeeded: bool
    failures: list[tuple[str, str]]
    users_fault: bool
    failed_checks: list[tuple[str, str, str]]


def _console_logger(console: Console) -> dg.LoggerDefinition:
    """Shows what assets say to people, and leaves Dagster's own events to the UI."""

    @dg.logger
    def people(_context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("stella", logging.INFO)
        handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S")
        handler.addFilter(_said_by_an_asset)
        handler.setFormatter(_PlainFormatter())
        logger.addHandler(handler)
        return logger

    return people


def _said_by_an_asset(record: logging.LogRecord) -> bool:
    """Not Dagster's own events, nor its lines on steps that a failure left unreached."""
    about = getattr(record, "dagster_meta", {})
    return not about.get("dagster_event") and not str(about.get("orig_message")).startswith("Dependencies for step")


class _PlainFormatter(logging.Formatter):
    """The message as the asset gave it, without run and step ids."""

    def format(self, record: logging.LogRecord) -> str:
        return str(getattr(record, "dagster_meta", {}).get("orig_message", record.getMessage()))


def select_keys(recipe: Recipe, workspace: Workspace, names: Sequence[str]) -> list[dg.AssetKey]:
    """The assets that names stand for, with all that they rest on; a name may be the first part of several, as `mteb`.

    Raises:
        UnknownAssetError: A name stands for none.
    """
    graph = build_definitions([recipe], workspace).resolve_asset_graph()
    names_in_order = ["/".join(key.path[1:]) for key in graph.toposorted_asset_keys]
    apart = (RUNS, STUDY, INPUTS, REDISTILLATION)  # `stella study` and `stella redistil` make these
    known = [name for name in names_in_order if name not in apart]
    chosen: list[dg.AssetKey] = []
    for name in names:
        plain = name.removeprefix(f"{recipe.name}/")
        matches = [asset for asset in known if asset == plain or asset.startswith(f"{plain}/")]
        if not matches:
            raise UnknownAssetError(
                f"--select {name}: recipe {recipe.name!r} has no such asset. It has {', '.join(known)}."
            )
        chosen += [asset_key(recipe.name, name) for name in matches]
    return sorted(dg.AssetSelection.assets(*chosen).upstream().resolve(graph))


def close_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process on this machine is gone, as after `kill -9`; the next run goes on there."""
    running = instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={HOST_TAG: socket.gethostname()})
    )
    dead = [run for run in running if not is_alive(run.tags.get(PROCESS_TAG, ""))]
    for run in dead:
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        instance.report_run_failed(
            run, f"Process {run.tags[PROCESS_TAG]} is gone; run again to go on where it stopped."
        )
    return [run.run_id for run in dead]


def pool_limits(workspace: Workspace, wanted: Sequence[str]) -> dict[str, int | None]:
    """How many steps of each pool run at once, None for any number, after setting those of `wanted`, as `training=2`.

    Raises:
        PoolError: There is no such pool, or the limit is no number above 0.
    """
    names = sorted(set(POOLS.values()))
    limits = {}
    for words in wanted:
        name, _, limit = words.partition("=")
        if name not in names or not limit.isdigit() or int(limit) < 1:
            raise PoolError(f"{words}: say POOL=LIMIT, as training=2. The pools are {', '.join(names)}.")
        limits[name] = int(limit)
    with _open_instance(workspace) as instance:
        storage = instance.event_log_storage
        for name, slots in limits.items():
            storage.set_concurrency_slots(name, slots)
        found = {pool.name: pool.limit for pool in storage.get_pool_limits()}
    return {name: found.get(name) for name in names}


def materialise(recipe: Recipe, workspace: Workspace, select: Sequence[str], console: Console) -> Outcome:
    """Run the recipe's job, or the selected assets of it.

    Raises:
        UnknownAssetError: The selection names no asset.
    """
    selection = select_keys(recipe, workspace, select) if select else None
    return _execute(recipe, workspace, job_name(recipe), console, asset_selection=selection)


def materialise_study(
    recipe: Recipe, workspace: Workspace, variants: Sequence[Variant], console: Console
) -> list[Outcome]:
    """Run each variant as a partition of the recipe's study, then compare all that were ever run.

    What fails is left out of the comparison; the outcomes are in the order of the variants, the comparison's last.
    """
    with _open_instance(workspace) as instance:
        instance.add_dynamic_partitions(partitions_name(recipe), [variant.name for variant in variants])
    outcomes = []
    for number, variant in enumerate(variants, 1):
        console.print(f"[bold]{number} of {len(variants)}[/]: {escape(variant.name)}", highlight=False)
        job = study_job_name(recipe, RUNS)
        outcomes.append(_execute(recipe, workspace, job, console, partition_key=variant.name))
    return [*outcomes, _execute(recipe, workspace, study_job_name(recipe, STUDY), console)]


def _execute(recipe: Recipe, workspace: Workspace, job: str, console: Console, **what: Any) -> Outcome:
    """Run a job in this process."""
    definitions = build_definitions([recipe], workspace, loggers={"console": _console_logger(console)})
    tags = {PROCESS_TAG: note_process(), HOST_TAG: socket.gethostname()}
    with _open_instance(workspace) as instance:
        for run_id in close_dead_runs(instance):
            console.print(f"Run {run_id[:8]} was killed; going on where it stopped.")
        result = definitions.resolve_job_def(job).execute_in_process(
            run_config={"loggers": {"console": {}}}, instance=instance, raise_on_error=False, tags=tags, **what
        )
    failures = [_failure(event) for event in result.all_events if event.is_step_failure]
    return Outcome(
        run_id=result.run_id,
        succeeded=result.success,
        failures=[(name, message) for name, message, _ in failures],
        users_fault=bool(failures) and all(fault for *_, fault in failures),
        failed_checks=[
            ("/".join(check.asset_key.path[1:]), check.check_name, check.description or "")
            for check in result.get_asset_check_evaluations()
            if not check.passed
        ],
    )


def _open_instance(workspace: Workspace) -> dg.DagsterInstance:
    """The UI's instance. Opening makes its SQLite files where there are none; two processes must not both do so."""
    check_postgres()
    with file_lock(workspace, "dagster"):
        return dg.DagsterInstance.get()


def _failure(event: dg.DagsterEvent) -> tuple[str, str, bool]:
    """(asset, what went wrong, whether it is an error of the kind with a remedy in its message)."""
    error: Any = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    name = (event.step_key or "").replace("__", "/")
    if error is None:
        return name, "failed without an error", False
    message = error.message.strip()
    if "ExecutionInterruptedError" in message:
        return name, "interrupted; run again to go on where it stopped.", False
    if "DagsterAssetCheckFailedError" in message:
        return name, "its checks failed, so what comes after was not made.", False
    kind, _, text = message.partition(": ")
    # The exceptions that this project defines are all ValueErrors with a remedy in their message.
    users_fault = kind.startswith(("stella_assets.", "storage.", "ValueError"))
    return name, (text if users_fault else message), users_fault
