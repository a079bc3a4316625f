"""Which release is served from now on."""

from __future__ import annotations

from typing import Any

from stella_assets.recipe import Recipe
from stella_assets.release.gate import failed_verdicts, gate_step
from stella_assets.release.publish import release_step
from stella_assets.step import Artefact, Workshop
from storage.home import Home
from storage.releases import ReleaseError, Releases


class NothingToServeError(ReleaseError):
    """The gate is closed, or there is no release yet."""


def promote_newest(recipe: Recipe, workshop: Workshop, name: str | None) -> dict[str, Any]:
    """Serve the release of the recipe as it stands, if its gate is open, and give the record of it.

    Raises:
        NothingToServeError: The gate is closed, or there is no release.
        ReleaseError: The name is taken.
    """
    artefact, gate = workshop.find(release_step(recipe)), workshop.find(gate_step(recipe))
    if gate is not None and (failed := failed_verdicts(gate.folder)):
        raise NothingToServeError(f"recipe {recipe.name!r}: the gate is closed. {'; '.join(failed)}")
    if artefact is None or gate is None:
        raise NothingToServeError(
            f"recipe {recipe.name!r}: there is no release for it as it stands. Run `stella run {recipe.name}` first."
        )
    return promote_release(artefact, recipe, workshop.home, name)


def promote_release(artefact: Artefact, recipe: Recipe, home: Home, name: str | None) -> dict[str, Any]:
    """Serve a release from now on, and give the record of it: see `Releases.promote`."""
    facts = artefact.manifest.facts
    about = {"digest": artefact.digest} | {key: facts[key] for key in ("mean_score", "dimensions", "licence")}
    return Releases(home, recipe.name).promote(artefact.folder, name, about)
