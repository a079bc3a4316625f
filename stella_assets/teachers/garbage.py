"""Garbage collection of the vector store: what no tag, no release and no live recipe needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stella_assets.core.errors import UserError
from stella_assets.storage.database import table_names
from stella_assets.storage.garbage import Garbage, clean_table, remove_table
from stella_assets.storage.homes import forget_home, homes_of, other_homes
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.concatenate import REFERENCE as SNAPSHOT_REFERENCE
from stella_assets.teachers.imported import imported_fingerprints
from stella_assets.teachers.scorers.step import TABLE_REFERENCE
from stella_assets.teachers.snapshot import Snapshot, snapshot_tags
from stella_assets.teachers.tables import SCORES, SNAPSHOT, STATES, VECTORS, snapshot_tables
from stella_assets.teachers.teacher_vectors import REFERENCE, read_reference

REFERENCES = (REFERENCE, SNAPSHOT_REFERENCE, TABLE_REFERENCE)
"""Files of artefacts that name tables and tags of the vector store."""
UNUSED = {
    VECTORS: "vectors of a teacher that nothing uses",
    SCORES: "scores of pairs that nothing uses",
    STATES: "states of evaluated texts, computed again when needed",
}
"""What the rows of a table that goes are, by the beginning of its name."""


@dataclass(frozen=True)
class Needed:
    """What must stay.

    Attributes:
        fingerprints: Teachers that a live recipe or a release uses.
        snapshots: Tags that a live recipe or a release uses, by recipe.
        scores: Tables of scores of pairs that a live recipe or a release uses.
        in_use: Whether a build runs or was interrupted. Nothing links to what it writes yet, so then all tables and
            tags stay, and only old versions go.
    """

    fingerprints: Set[str]
    snapshots: Set[tuple[str, str]]
    scores: Set[str] = frozenset()
    in_use: bool = False


def live_vectors(folders: Iterable[Path], *, in_use: bool = False) -> Needed:
    """What the artefacts in some folders need of the vector store.

    Args:
        folders: Of the artefacts that are alive, of any kind; those without vectors need nothing.
        in_use: Whether a build runs or was interrupted.
    """
    fingerprints: set[str] = set()
    snapshots: set[tuple[str, str]] = set()
    scores: set[str] = set()
    for folder in folders:
        # The files tell the kind of artefact, so artefacts of any recipe and version can be given.
        if (folder / REFERENCE).is_file():
            fingerprints |= set(read_reference(folder).fingerprints.values())
        if (folder / SNAPSHOT_REFERENCE).is_file():
            reference = json.loads((folder / SNAPSHOT_REFERENCE).read_text(encoding="utf-8"))
            snapshots.add((reference["table"].removesuffix(SNAPSHOT), reference["tag"]))
        if (folder / TABLE_REFERENCE).is_file():
            scores.add(json.loads((folder / TABLE_REFERENCE).read_text(encoding="utf-8"))["table"])
    return Needed(fingerprints, snapshots, scores, in_use)


def collect_garbage(
    workspace: Workspace,
    look: Callable[[], Needed],
    *,
    dry_run: bool,
    superseded: bool,
    given_up: Collection[str] = (),
    gone: Collection[str] = (),
) -> list[Garbage]:
    """Remove what nothing needs, or with `dry_run` only say what that would be.

    Tags keep what they name, and teachers keep all vectors while anything uses them, or if some were imported. With
    `superseded`, the tags of snapshots that no live recipe and no release uses are removed first. Of a table that
    another home uses as well only old versions go, since nothing tells what is needed there.

    Args:
        workspace: Where the store is.
        look: Gives what must stay. It is asked once more under the lock of each table that is to go: a build may have
            begun to write it, or ended, meanwhile.
        dry_run: Only say what would be removed.
        superseded: Also remove snapshots that are not needed.
        given_up: Fingerprints whose imported vectors keep no table any more.
        gone: Other homes that keep no table any more.

    Returns:
        What was removed, or would be.

    Raises:
        StoreError: A table cannot be read; nothing of it is removed.
    """
    needed = look()
    for name in table_names(workspace) if not dry_run else ():
        for home in gone:
            forget_home(workspace, name, home)
    elsewhere = partial(other_homes, workspace, gone=gone)
    # Snapshots before teachers: a snapshot that stays can only be repaired from its teachers' vectors, so it keeps
    # their tables, too.
    found, fingerprints = _clean_snapshots(workspace, needed, look, elsewhere, superseded=superseded, dry_run=dry_run)
    fingerprints |= set(imported_fingerprints(workspace)) - set(given_up)
    for name in table_names(workspace):
        what = next((what for kind, what in UNUSED.items() if name.startswith(kind)), None)
        if what and not _keeps(name, needed, fingerprints) and not elsewhere(name):
            is_needed = partial(_is_needed, name, look, fingerprints, elsewhere)
            found += remove_table(workspace, name, what, is_needed, dry_run=dry_run)
        elif what and not name.startswith(STATES):
            # Old versions only: vectors of texts that no corpus has now may be wanted again, and cost hours or money.
            found += clean_table(workspace, name, list, dry_run=dry_run)
    return found


def _clean_snapshots(
    workspace: Workspace,
    needed: Needed,
    look: Callable[[], Needed],
    elsewhere: Callable[[str], Collection[str]],
    *,
    superseded: bool,
    dry_run: bool,
) -> tuple[list[Garbage], set[str]]:
    """What goes of snapshots, and the fingerprints of the teachers of those that stay."""
    found: list[Garbage] = []
    fingerprints: set[str] = set()
    for name in snapshot_tables(table_names(workspace)):
        recipe = name.removesuffix(SNAPSHOT)
        tags = snapshot_tags(workspace, recipe)
        stale = _stale(recipe, tags, needed) if superseded and not elsewhere(name) else []
        for tag in tags:
            if tag not in stale:
                snapshot = Snapshot.open(workspace, recipe, tag)
                fingerprints |= {f for by_role in snapshot.fingerprints.values() for f in by_role.values()}
        still_stale = partial(_still_stale, recipe, stale, look, elsewhere) if stale else list
        found += clean_table(workspace, name, still_stale, dry_run=dry_run)
    return found, fingerprints


def _stale(recipe: str, tags: Iterable[str], needed: Needed) -> list[str]:
    """Tags of a recipe's snapshots that nothing needs."""
    return [] if needed.in_use else [tag for tag in tags if (recipe, tag) not in needed.snapshots]


def _still_stale(
    recipe: str, tags: Iterable[str], look: Callable[[], Needed], elsewhere: Callable[[str], Collection[str]]
) -> list[str]:
    return [] if elsewhere(recipe + SNAPSHOT) else _stale(recipe, tags, look())


def _keeps(name: str, needed: Needed, fingerprints: Set[str]) -> bool:
    """Whether a table of vectors, scores or states has to stay."""
    if name.startswith(VECTORS) and name.removeprefix(VECTORS) in fingerprints | needed.fingerprints:
        return True
    return needed.in_use or name in needed.scores


def _is_needed(
    name: str, look: Callable[[], Needed], fingerprints: Set[str], elsewhere: Callable[[str], Collection[str]]
) -> bool:
    return _keeps(name, look(), fingerprints) or bool(elsewhere(name))


def require_homes(workspace: Workspace, homes: Collection[str]) -> None:
    """Make sure that these other homes use the store.

    Raises:
        UserError: One does not.
    """
    known = homes_of(workspace)
    for home in homes:
        if home not in known:
            shown = ", ".join(f"{each} ({place})" for each, place in known.items())
            raise UserError(
                f"--drop-home {home}: no other home with this identifier uses the store.",
                f"Others that use it are {shown}." if shown else "No other home uses it.",
            )
