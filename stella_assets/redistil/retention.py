"""Letting go: releases beyond those that a recipe keeps, and what nothing that stays rests on."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
from storage.workspace import Workspace

from stella_assets.core.manifest import Manifest
from stella_assets.core.trace import Node, Tracer
from stella_assets.corpus.cleaned import live_shards
from stella_assets.evaluation.score import SCORES_FILE, TASK_SCORES
from stella_assets.recipe import RESERVED_NAMES
from stella_assets.teachers.keep import needed
from stella_assets.training.stages import START
from stella_assets.training.start import find_start, read_start
from storage.artefacts import MANIFEST, finished
from storage.garbage import collect
from storage.releases import Releases
from storage.shards import free_shards


def collect_garbage(
    workspace: Workspace, recipe: str, keep: int, retention_days: float, *, dry_run: bool = False
) -> list[str]:
    """Let go of releases beyond the newest of a recipe, and of what nothing rests on any more.

    What stays: what every recipe has now, what the releases that stay rest on, down to the corpus, those of other
    recipes too, and what was made in the last days, by a study for example. Vectors of a teacher that anything uses
    stay all, so no text is embedded twice.

    Args:
        workspace: Where.
        recipe: Whose releases may go.
        keep: How many of them stay.
        retention_days: How long something stays that nothing rests on.
        dry_run: Only say what would go.

    Returns:
        What went, or would go, in words.
    """
    old = _old(workspace, recipe, keep)
    lines = [f"release {recipe}@{name}" for name in old]
    live = _live(
        workspace, [folder for (of, name), folder in _releases(workspace).items() if of != recipe or name not in old]
    )
    for name in old if not dry_run else ():
        Releases(workspace, recipe).forget(name)
    before = datetime.now(UTC) - timedelta(days=retention_days)
    used = _scored_weights(live)
    gone = [
        folder
        for folder in finished(workspace)
        if folder not in live and _made_at(folder) < before and _score_of(folder, workspace) not in used
    ]
    size = sum(file.stat().st_size for folder in gone for file in folder.rglob("*") if file.is_file())
    for folder in gone if not dry_run else ():
        (folder / MANIFEST).unlink()  # from now on it is no artefact, whenever this process is killed
        shutil.rmtree(folder)
    if gone:
        lines.append(f"{len(gone)} artefacts of {size / 2**20:,.0f} MiB")
    garbage = collect(workspace, needed(workspace), dry_run=dry_run, superseded=True)
    lines += [f"{item.table}: {item.what}, {item.bytes / 2**20:,.1f} MiB" for item in garbage if item.bytes]
    shards = free_shards(workspace, live_shards(workspace), dry_run=dry_run)
    return lines + [f"{row['files']} shards of {row['kind']}, {row['MiB']} MiB" for row in shards]


def _old(workspace: Workspace, recipe: str, most: int) -> list[str]:
    """Names of the releases that go; never what is served, nor what would be served after a roll-back."""
    releases = Releases(workspace, recipe)
    current = releases.current()
    safe = {current, releases.record(current)["previous"]} if current else set()
    return [name for name in releases.names()[most:] if name not in safe]


def _releases(workspace: Workspace) -> dict[tuple[str, str], Path]:
    """Folders of all releases that were promoted, by recipe and name, but for those that were deleted by hand."""
    recipes = [path.name for path in workspace.releases.glob("*/")]
    folders = {
        (recipe, name): (workspace.releases / recipe / name).resolve()
        for recipe in recipes
        for name in Releases(workspace, recipe).names()
    }
    return {release: folder for release, folder in folders.items() if (folder / MANIFEST).is_file()}


def _made_at(folder: Path) -> datetime:
    return datetime.fromisoformat(Manifest.read(folder / MANIFEST).run_info["made_at"])


def _live(workspace: Workspace, kept: list[Path]) -> set[Path]:
    """Folders of what recipes have now, of what stays of the releases, and of all that these rest on.

    Of a release that another one continued from, the weights stay, so that the later one can be made again.
    """
    tracer, folders = Tracer(workspace), list(kept)
    for recipe in workspace.root.iterdir():
        links = recipe.rglob("*") if recipe.is_dir() and recipe.name not in RESERVED_NAMES else ()
        folders += [link.resolve() for link in links if link.is_symlink() and (link / MANIFEST).is_file()]
    for path in workspace.starts.glob("*.json"):
        start = read_start(workspace, path.stem)
        folders += [start.folder(workspace)] if start else []
    nodes: list[Node] = [tracer.of_folder(folder) for folder in folders]
    rested_on = {each for node in nodes for each in node.all.values()}
    begun_with = [find_start(workspace, digest) for digest in {each.sources.get(START) for each in rested_on} if digest]
    return {each.folder for each in rested_on if each.folder} | {
        start.folder(workspace) for start in begun_with if start
    }


def _scored_weights(live: set[Path]) -> set[str]:
    """Digests of the models that something which stays was scored with."""
    scores = [place / SCORES_FILE for place in live if place.parent.parent.name == "mteb"]
    return {w for path in scores for w in pq.read_table(path, columns=["weights"]).column(0).to_pylist()}


def _score_of(folder: Path, workspace: Workspace) -> str | None:
    """The digest of the model that a single score is of; None for any other artefact."""
    if not folder.is_relative_to(workspace.artefacts / TASK_SCORES):
        return None
    return Manifest.read(folder / MANIFEST).identity.settings["loader"]["weights"]
