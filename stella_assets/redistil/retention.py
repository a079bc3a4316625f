"""Retention: which releases stay, and the removal of what nothing needs any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from stella_assets.core.manifest import Manifest
from stella_assets.release.alive import (
    collecting,
    linked_artefacts,
    live_artefacts,
    needed_shards,
    needed_vectors,
)
from stella_assets.release.publish import RELEASE
from stella_assets.storage.artefacts import MANIFEST, ArtefactStore, finished
from stella_assets.storage.files import below
from stella_assets.storage.releases import Releases
from stella_assets.storage.shards import free_shards
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers import garbage as vector_garbage


def collect_garbage(
    workspace: Workspace, recipe: str, keep: int, retention_days: float, *, dry_run: bool = False
) -> list[str]:
    """Remove releases beyond the newest of a recipe, and what nothing needs any more.

    What stays: see `live_artefacts`, for all recipes; and what was made in the last days, e.g. by a study. All vectors
    of a teacher stay while anything uses some of them, so no text is embedded twice.

    Args:
        workspace: Where state is kept.
        recipe: Whose releases may go.
        keep: How many of them stay.
        retention_days: How long something stays that nothing needs.
        dry_run: Only say what would be removed.

    Returns:
        What was removed, or would be, in words.
    """
    with collecting(workspace):
        return _collect(workspace, recipe, keep, retention_days, dry_run=dry_run)


def _collect(workspace: Workspace, recipe: str, keep: int, retention_days: float, *, dry_run: bool) -> list[str]:
    before = datetime.now(UTC) - timedelta(days=retention_days)
    # In this order a kill leaves files that the next call removes, never a name or a link without its files.
    forgotten = releases_beyond(workspace, recipe, keep)
    lines = [f"release {recipe}@{name}" for name in forgotten]
    removable = _removable_releases(workspace, recipe, forgotten, before)
    # Before names are removed, so that a dry run computes the same set.
    live = live_artefacts(workspace, without=removable)
    for name in forgotten if not dry_run else ():
        Releases(workspace, recipe).forget(name)
    lines += _remove_artefacts(workspace, live, before, dry_run=dry_run)
    # After the artefacts: they name the vectors and shards that are still needed.
    lines += _remove_vectors(workspace, removable, dry_run=dry_run)
    return lines + _remove_shards(workspace, removable, dry_run=dry_run)


def releases_beyond(workspace: Workspace, recipe: str, keep: int) -> list[str]:
    """Names of releases beyond the newest ones; never the active one, nor the one that a roll-back would restore.

    Args:
        workspace: Where state is kept.
        recipe: Name of the recipe.
        keep: How many of the newest stay.
    """
    releases = Releases(workspace, recipe)
    active = releases.active()
    # The active release need not be among the newest: after a roll-back it is an older one.
    safe = {active, releases.record(active)["previous"]} if active else set()
    return [name for name in releases.names()[keep:] if name not in safe]


def _remove_vectors(workspace: Workspace, without: Collection[Path], *, dry_run: bool) -> list[str]:
    """Remove snapshots and teachers' vectors that nothing needs, in words."""
    look = partial(needed_vectors, workspace, without=without)
    garbage = vector_garbage.collect_garbage(workspace, look, dry_run=dry_run, superseded=True)
    return [f"{item.table}: {item.what}, {item.bytes / 2**20:,.1f} MiB" for item in garbage if item.bytes]


def _remove_shards(workspace: Workspace, without: Collection[Path], *, dry_run: bool) -> list[str]:
    """Remove shards of texts that nothing needs, in words."""
    freed = free_shards(workspace, partial(needed_shards, workspace, without=without), dry_run=dry_run)
    return [f"{row['files']} shards of {row['kind']}, {row['MiB']} MiB" for row in freed]


def _removable_releases(workspace: Workspace, recipe: str, forgotten: Collection[str], before: datetime) -> set[Path]:
    """Release artefacts that no name stands for any more, made before a time."""
    names = [
        (path.name, name) for path in workspace.releases.glob("*/") for name in Releases(workspace, path.name).names()
    ]
    # Names of all recipes count: one artefact may have several.
    promoted = {
        Releases(workspace, owner).record(name)["key"]
        for owner, name in names
        if owner != recipe or name not in forgotten
    }
    releases = finished(workspace, RELEASE)
    return {folder for folder in releases if folder.name not in promoted and _made_at(folder) < before}


def _remove_artefacts(workspace: Workspace, live: Collection[Path], before: datetime, *, dry_run: bool) -> list[str]:
    """Remove artefacts that are neither alive nor recent."""
    gone = [folder for folder in finished(workspace) if folder not in live and _made_at(folder) < before]
    if not gone:
        return []
    # Measured first: afterwards there is nothing to measure.
    size = _bytes(gone)
    store = ArtefactStore(workspace)
    for folder in gone if not dry_run else ():
        asset = folder.parent.relative_to(workspace.artefacts).as_posix()
        store.remove(asset, folder.name, partial(_is_linked, workspace, folder))
    return [f"{len(gone)} artefacts of {size / 2**20:,.0f} MiB"]


def _is_linked(workspace: Workspace, folder: Path) -> bool:
    return folder in linked_artefacts(workspace)


def _bytes(folders: Iterable[Path]) -> int:
    return sum(file.stat().st_size for folder in folders for file in below(folder) if file.is_file())


def _made_at(folder: Path) -> datetime:
    # Not the time of the file, which a copy or a restored backup changes.
    return datetime.fromisoformat(Manifest.read(folder / MANIFEST).run_info["made_at"])
