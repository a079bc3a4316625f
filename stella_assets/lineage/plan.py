"""What the next run of a recipe would make, why, and what it would cost at the speed of past runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stella_assets.core.manifest import Manifest, reasons
from stella_assets.core.runner import Runner
from stella_assets.core.step import Size, Step
from stella_assets.lineage.probe import Probe, by_rule
from stella_assets.recipe import Graph
from stella_assets.storage.artefacts import MANIFEST, finished

State = Literal["exists", "made"]
PAST_RUNS = 3
"""The middle one of these tells: a run next to others is slower than it would be alone."""


@dataclass(frozen=True)
class Planned:
    """What the next run would do with one asset.

    Attributes:
        asset: Its name.
        state: Whether it `exists`, or would be `made`.
        because: Why it would be made.
        work: How much, e.g. in texts or steps; empty where there is no such measure or nothing to do.
        seconds: How long it would take; None where neither a past run nor a probe tells.
        memory_mib: Peak memory of the process.
        disk_mib: On the disk at most, while it is made.
        money: What others charge for it, in dollars; None where nobody knows the price.
        texts: To embed, to encode or to train on, repetitions included.
        steps: Of training.
        tokens: That others would be sent.
        charges: What they would charge, in words, and how that is known.
        source: What tells the time, e.g. `2 past runs`; empty where nothing does.
    """

    asset: str
    state: State
    because: tuple[str, ...] = ()
    work: str = ""
    seconds: float | None = 0.0
    memory_mib: int | None = None
    disk_mib: float | None = None
    money: float | None = 0.0
    texts: int | None = None
    steps: int | None = None
    tokens: int | None = None
    charges: str = ""
    source: str = ""


def plan(graph: Graph, runner: Runner, probe: Probe | None = None) -> list[Planned]:
    """What a run would do with each asset. Nothing is made, and no model is loaded.

    Args:
        graph: Of the recipe.
        runner: Finds artefacts.
        probe: What tells where no past run does.

    Returns:
        One entry per step, inputs first.

    Raises:
        UserError: A source or a teacher does not exist, or cannot be read.
    """
    planned: dict[Step[Any], Planned] = {}
    size = size_of(graph, runner) or (probe.size if probe else None)
    rules = by_rule(graph) if probe else {}
    for step in graph.steps:
        # Inputs come first in `graph.steps`, so their plans are known.
        planned[step] = _plan_step(step, runner, planned, size, probe, rules)
    return list(planned.values())


def size_of(graph: Graph, runner: Runner) -> Size | None:
    """The size of the recipe's corpus, if it is made as the recipe is now."""
    made = runner.find(graph.corpus)
    if made is None:
        return None
    texts = made.manifest.metrics
    train, dev, test = (texts.get(f"texts_{split}", 0) for split in ("train", "dev", "test"))
    related = runner.find(graph.pairs) if graph.pairs else None
    pairs = related.manifest.metrics["pairs_train"] + related.manifest.metrics["scored"] if related else None
    # Of corpora of older versions, an upper bound.
    mean_bytes = texts.get("mean_bytes", 4 * texts["mean_chars"])
    return Size(texts["texts"], train, dev, test, mean_bytes, pairs)


def _plan_step(
    step: Step[Any],
    runner: Runner,
    planned: dict[Step[Any], Planned],
    size: Size | None,
    probe: Probe | None,
    rules: Collection[Step[Any]],
) -> Planned:
    if runner.find(step) is not None:
        return Planned(step.name, "exists")
    # Whatever these become, the digest of the step's inputs changes.
    follows = [name for each, name in step.input_names.items() if planned[each].state == "made"]
    # `identity` would refuse: inputs are missing.
    because = tuple(reasons(runner.known_identity(step), runner.before(step), follows))
    if past := _past(step, runner):
        found = sorted(
            (step.estimated(runner, each, size) for each in past), key=lambda estimate: estimate.seconds or 0.0
        )
        estimate, source = found[len(found) // 2], "a past run" if len(past) == 1 else f"{len(past)} past runs"
    elif probe and step.stored_as in probe.steps:
        estimate, source = probe.steps[step.stored_as], "a rule of thumb" if step in rules else "a probe"
    else:
        estimate, source = step.estimated(runner, None, size), ""
    known = asdict(estimate)
    return Planned(step.name, "made", because, **known, source=source if estimate.seconds is not None else "")


def _past(step: Step[Any], runner: Runner) -> list[Manifest]:
    """Up to three of the newest artefacts whose time tells that of the step, what the recipe had for it first."""
    before = runner.before(step)
    folders = finished(runner.workspace, step.stored_as)
    # By the time of the file: reading every manifest only for its date would make a quick command slow.
    newest = sorted(folders, key=lambda folder: (folder / MANIFEST).stat().st_mtime, reverse=True)[:PAST_RUNS]
    found = [before] if before else []
    found += [
        manifest
        for folder in newest
        if (manifest := Manifest.read(folder / MANIFEST)).digest not in {each.digest for each in found}
    ]
    here = runner.compute.describe()
    # Older versions did not note the device.
    return [each for each in found[:PAST_RUNS] if each.run_info.get("device", here) == here and step.tells(each)]
