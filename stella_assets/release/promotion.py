"""Which release is active from now on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stella_assets.core.errors import UserError
from stella_assets.core.intact import open_intact
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, Step
from stella_assets.release.verdicts import Verdict, failed_verdicts
from stella_assets.storage.releases import Releases
from stella_assets.storage.workspace import Workspace

RECORDED = ("mean_score", "dimensions", "licence")
"""Metrics of a release that the record of its promotion keeps."""


class NothingToPromoteError(UserError):
    """The gate is closed, or there is no release yet."""


def promote_newest(
    runner: Runner, *, release: Step[Any], gate: Step[list[Verdict]], name: str | None
) -> Mapping[str, Any]:
    """Make the release of the recipe as it is the active one, if its gate is open.

    Args:
        runner: Finds the artefacts.
        release: The recipe's release.
        gate: Its gate.
        name: What the release will be called; None for the date and a part of its key.

    Returns:
        The record of the promotion.

    Raises:
        NothingToPromoteError: The gate is closed, or there is no release.
        DamagedArtefactError: Its files or those of the gate are not as they were made.
        ReleaseError: The name is taken.
    """
    recipe, workspace = release.recipe, runner.workspace
    # Found by the recipe as it is now: a release of older settings is not promoted by accident.
    artefact, judged = runner.find(release), runner.find(gate)
    if judged is not None:
        open_intact(workspace, judged.folder, thorough=True)
    # The gate first: where it is closed, that is also why there is no release.
    if judged is not None and (failed := failed_verdicts(runner.read(gate))):
        raise NothingToPromoteError(
            f"recipe {recipe!r}: the gate is closed. {'; '.join(failed)}.",
            "Improve the student, or change `release.gate` in the recipe.",
        )
    # The gate was open when it was promoted. A command that was killed right after that is repeated like this.
    if artefact is not None and judged is None and _is_active(artefact, workspace, recipe, name):
        return promote_release(artefact, recipe, workspace, Releases(workspace, recipe).active())
    if artefact is None or judged is None:
        raise NothingToPromoteError(
            f"recipe {recipe!r}: there is no release for it as it is.", f"Run `stella run {recipe}` first."
        )
    return promote_release(artefact, recipe, workspace, name)


def _is_active(artefact: Artefact, workspace: Workspace, recipe: str, name: str | None) -> bool:
    """Whether this artefact is the active release, under this name if one is given."""
    releases = Releases(workspace, recipe)
    active = releases.active()
    return active is not None and name in (None, active) and releases.record(active)["key"] == artefact.folder.name


def promote_release(artefact: Artefact, recipe: str, workspace: Workspace, name: str | None) -> Mapping[str, Any]:
    """Make a release the active one, and give the record of it: see `Releases.promote`.

    Args:
        artefact: The release.
        recipe: Name of the recipe.
        workspace: Where releases are stored.
        name: What the release will be called; None for the date and a part of its key.

    Raises:
        DamagedArtefactError: Its files are not as they were made.
        ReleaseError: The name is taken, or is not a valid name.
    """
    # Every byte: what is promoted is served for months, so here no time of change vouches for a file.
    open_intact(workspace, artefact.folder, thorough=True)
    metrics = artefact.manifest.metrics
    # Copied into the record, which stays readable when the artefact was removed.
    record = {"digest": artefact.digest} | {key: metrics[key] for key in RECORDED}
    return Releases(workspace, recipe).promote(artefact.folder, name, record)


def roll_back(workspace: Workspace, recipe: str) -> tuple[str, str]:
    """Make the release active that was active before, after all its files were read: see `Releases.roll_back`.

    Args:
        workspace: Where releases are stored.
        recipe: Name of the recipe.

    Returns:
        The name of the release that was active, and of the one that is now.

    Raises:
        DamagedArtefactError: The files of the earlier release are not as they were made.
        ReleaseError: There is nothing to go back to, or its files are gone.
    """
    return Releases(workspace, recipe).roll_back(lambda folder: open_intact(workspace, folder, thorough=True))
