"""What the next run of a recipe would make, why, and what it would cost at the speed of past runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from stella_assets.core.manifest import Manifest, reasons
from stella_assets.core.runner import Runner
from stella_assets.core.step import Estimate, Step
from stella_assets.recipe import Graph
from stella_assets.storage.artefacts import MANIFEST, finished

State = Literal["exists", "made"]


@dataclass(frozen=True)
class Planned:
    """What the next run would do with one asset.

    Attributes:
        asset: Its name.
        state: Whether it `exists`, or would be `made`.
        because: Why it would be made.
        work: How much, e.g. in texts or steps; empty where there is no such measure or nothing to do.
        seconds: How long it would take, from the last run of its kind; None where no past run tells.
    """

    asset: str
    state: State
    because: tuple[str, ...] = ()
    work: str = ""
    seconds: float | None = 0.0


def plan(graph: Graph, runner: Runner) -> list[Planned]:
    """What a run would do with each asset. Nothing is made, and no model is loaded.

    Args:
        graph: Of the recipe.
        runner: Finds artefacts.

    Returns:
        One entry per step, inputs first.

    Raises:
        UserError: A source or a teacher does not exist, or cannot be read.
    """
    planned: dict[Step[Any], Planned] = {}
    for step in graph.steps:
        # Inputs come first in `graph.steps`, so their plans are known.
        planned[step] = _plan_step(step, runner, planned)
    return list(planned.values())


def _plan_step(step: Step[Any], runner: Runner, planned: dict[Step[Any], Planned]) -> Planned:
    if runner.find(step) is not None:
        return Planned(step.name, "exists")
    # Whatever these become, the digest of the step's inputs changes.
    follows = [name for each, name in step.input_names.items() if planned[each].state == "made"]
    # `identity` would refuse: inputs are missing.
    because = reasons(runner.known_identity(step), runner.before(step), follows)
    last = _last_of_its_kind(step, runner)
    if step.estimate is not None:
        estimate = step.estimate(runner, last)
    else:
        estimate = Estimate(seconds=float(last.run_info["seconds"]) if last else None)
    return Planned(step.name, "made", tuple(because), estimate.work, estimate.seconds)


def _last_of_its_kind(step: Step[Any], runner: Runner) -> Manifest | None:
    """What the recipe had for the step; else the newest artefact of its family, of any recipe."""
    before = runner.before(step)
    if before is not None:
        return before
    paths = [folder / MANIFEST for folder in finished(runner.workspace, step.stored_as)]
    # By the time of the file: reading every manifest only for its date would make a quick command slow.
    return Manifest.read(max(paths, key=lambda path: path.stat().st_mtime)) if paths else None
