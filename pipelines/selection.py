"""Which steps a run has to execute. Dagster is not needed to know that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stella_assets.core.runner import Runner
from stella_assets.core.step import Step, upstream
from stella_assets.study import STUDY_ASSET

if TYPE_CHECKING:
    from stella_assets.recipe import Graph

Steps = list[Step[Any]]


@dataclass(frozen=True)
class Selection:
    """The steps that were asked for, with everything that they depend on.

    Attributes:
        steps: All of them, inputs first.
        missing: Those without an artefact for the recipe as it is.
        executed: Those that a run executes: the missing ones, the closed gates before them, and what lies between.
    """

    steps: Steps
    missing: Steps
    executed: Steps


def select_steps(wanted: Sequence[Step[Any]], runner: Runner) -> Selection:
    """Find out which steps a run has to execute.

    A step whose blocking check failed stops what comes after it, however often a run is repeated. So it is executed
    again, together with the steps that lead from it to a missing one: Dagster then skips these.

    Args:
        wanted: What was asked for.
        runner: Finds artefacts.

    Returns:
        The selection; its lists are in an order in which inputs come first.

    Example:
        >>> [step.name for step in select_steps([graph.release], runner).missing]
    """
    steps = upstream(*wanted)
    missing = [step for step in steps if runner.find(step) is None]
    # Only gates on the way to something missing matter; another closed gate stops nothing of this run.
    before = set(upstream(*missing))
    closed = [step for step in steps if step in before and step not in missing and _is_closed(step, runner)]
    # Also contains the gates themselves: Dagster evaluates their checks in the run.
    stopped = {step for step in before if any(gate in upstream(step) for gate in closed)}
    executed = {*missing, *stopped}
    return Selection(steps, missing, [step for step in steps if step in executed])


def unlinked(selection: Selection, runner: Runner) -> Steps:
    """The steps that no run executes, and whose artefact the recipe does not have until it is linked.

    Also those whose link was made, but not its run's last step: a kill came between the two.

    Args:
        selection: As `select_steps` gives it.
        runner: Finds artefacts.
    """
    executed = set(selection.executed)
    return [step for step in selection.steps if step not in executed and not runner.is_linked(step)]


def prune_links(graph: Graph, runner: Runner) -> None:
    """Remove links to assets of teachers and stages that the recipe no longer has.

    Args:
        graph: Of the recipe. The link to its study stays, which is not a step of it.
        runner: Of the workspace.
    """
    runner.prune_links(graph.recipe.name, graph.steps, keep=[STUDY_ASSET])


def _is_closed(step: Step[Any], runner: Runner) -> bool:
    """Whether a blocking check of the step's artefact failed."""
    if step.presentation is None:
        return False
    blocking = {check.name for check in step.presentation.checks if check.blocking}
    return any(check.name in blocking and not check.passed for check in runner.require(step).manifest.checks)
