"""Which release is served from now on."""

from __future__ import annotations

from typing import Any

from storage.workspace import Workspace

from stella_assets.core.step import Artefact, Runner
from stella_assets.recipe import Recipe
from stella_assets.release.gate import failed_verdicts, gate_step
from stella_assets.release.publish import release_step
from storage.releases import ReleaseError, Releases


class NothingToServeError(ReleaseError):
    """The gate is closed, or there is no release yet."""


def promote_newest(recipe: Recipe, runner: Runner, name: str | None) -> dict[str, Any]:
    """Serve the release of the recipe as it stands, if its gate is open, and give the record of it.

    Raises:
        NothingToServeError: The gate is closed, or there is no release.
        ReleaseError: The name is taken.
    """
    artefact, gate = runner.find(release_step(recipe)), runner.find(gate_step(recipe))
    if gate is not None and (failed := failed_verdicts(gate.folder)):
        raise NothingToServeError(f"recipe {recipe.name!r}: the gate is closed. {'; '.join(failed)}")
    if artefact is None or gate is None:
        raise NothingToServeError(
            f"recipe {recipe.name!r}: there is no release for it as it stands. Run `stella run {recipe.name}` first."
        )
    return promote_release(artefact, recipe, runner.workspace, name)


def promote_release(artefact: Artefact, recipe: Recipe, workspace: Workspace, name: str | None) -> dict[str, Any]:
    """Serve a release from now on, and give the record of it: see `Releases.promote`."""
    metrics = artefact.manifest.metrics
    about = {"digest": artefact.digest} | {key: metrics[key] for key in ("mean_score", "dimensions", "licence")}
    return Releases(workspace, recipe.name).promote(artefact.folder, name, about)
