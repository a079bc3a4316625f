"""Re-distillation: run a recipe again as far as it is worth it, record the outcome, and apply retention."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from stella_assets.core.errors import EXPECTED, UserError
from stella_assets.core.runner import Runner
from stella_assets.recipe import Graph, Recipe, Redistil
from stella_assets.redistil.attempt import Attempt, MakeAll, inputs_of, make_in_process
from stella_assets.redistil.ledger import TRAINED, Entry, Ledger
from stella_assets.redistil.retention import collect_garbage
from stella_assets.storage.locks import file_lock
from stella_assets.storage.releases import Releases
from stella_assets.storage.workspace import Workspace

__all__ = ["Attempt", "MakeAll", "NotRedistilledError", "apply_retention", "inputs_of", "make_in_process", "redistil"]


class NotRedistilledError(UserError):
    """The recipe does not ask for re-distillation."""


def redistil(
    graph: Graph, runner: Runner, make_all: MakeAll, now: datetime | None = None, *, force: bool = False
) -> Entry:
    """Run the recipe again as far as it is worth it, and record the outcome in the ledger.

    What fails because of its input leaves the active release in place, and is tried again the next time. What was
    killed continues where it stopped. One process at a time does this for a recipe; another one waits, and then finds
    nothing new.

    Args:
        graph: Of the recipe.
        runner: Finds artefacts.
        make_all: Makes steps: in this process, or in runs that Dagster sees.
        now: When it begins; the date names the release.
        force: Train even if little or nothing is new.

    Returns:
        The entry of the ledger.

    Raises:
        NotRedistilledError: The recipe does not ask for it.
        LedgerError: A line of the ledger was changed by hand.
        OSError: A disk, a network or an object store failed; nothing is recorded, and it can be tried again.

    Example:
        >>> entry = redistil(graph, runner, make_all=make_in_process(runner))
        >>> entry.verdict
        'promoted'
    """
    recipe, workspace = graph.recipe, runner.workspace
    settings = _settings(recipe)
    # Durations by the monotonic clock: the time of day may be set back in between.
    began, at = time.monotonic(), now or datetime.now(UTC)
    ledger = Ledger(workspace, recipe.name)

    def on_wait() -> None:
        runner.log.info("another process is re-distilling this recipe; waiting for it.")

    # A schedule, a sensor and a person may ask at the same time; the second one must see the first one's entry.
    with file_lock(workspace, f"redistil-{recipe.name}", on_wait):
        attempt = Attempt(graph, settings, runner, make_all, ledger)
        try:
            entry = attempt.run(at, force)
        # OSError is not among these: it passes, so that the caller can try again. A bug passes, too.
        except EXPECTED as refused:
            entry = attempt.outcome("failed", str(refused))
        entry = replace(
            entry,
            started_at=at.astimezone(UTC).isoformat(timespec="seconds"),
            # Asked after promotion: it is the release that is active from now on.
            release=Releases(workspace, recipe.name).active(),
            seconds=round(time.monotonic() - began, 2),
        )
        # Before anything is removed: an error there must not leave a promoted release without its entry.
        ledger.add(entry)
        # Only a trained student adds stages and a release, and so takes the place of older ones.
        if entry.verdict in TRAINED:
            try:
                for line in apply_retention(recipe, workspace):
                    runner.log.info(f"removed: {line}")
            except EXPECTED as refused:  # e.g. damage, even of another recipe; this one is done
                runner.log.warning(f"nothing more is removed: {refused}")
    runner.log.info(str(entry))
    return entry


def apply_retention(recipe: Recipe, workspace: Workspace, *, dry_run: bool = False) -> list[str]:
    """Remove what `redistil.keep` and `redistil.retention_days` of the recipe do not keep: see `collect_garbage`.

    Args:
        recipe: Whose releases may go.
        workspace: Where state is kept.
        dry_run: Only say what would be removed.

    Returns:
        What was removed, or would be, in words.

    Raises:
        NotRedistilledError: The recipe does not ask for re-distillation.
    """
    settings = _settings(recipe)
    return collect_garbage(workspace, recipe.name, settings.keep, settings.retention_days, dry_run=dry_run)


def _settings(recipe: Recipe) -> Redistil:
    if recipe.redistil is None:
        raise NotRedistilledError(
            f"recipe {recipe.name!r}: does not ask for re-distillation.", "Add `redistil: true`, or settings for it."
        )
    return recipe.redistil
