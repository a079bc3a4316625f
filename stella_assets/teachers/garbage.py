"""Garbage collection of the vector store: what no tag, no release and no live recipe needs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from stella_assets.storage.database import table_names
from stella_assets.storage.garbage import Garbage, clean_table, remove_table
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.concatenate import REFERENCE as SNAPSHOT_REFERENCE
from stella_assets.teachers.imported import imported_fingerprints
from stella_assets.teachers.scorers.step import TABLE_REFERENCE
from stella_assets.teachers.snapshot import Snapshot, snapshot_tags
from stella_assets.teachers.tables import SCORES, SNAPSHOT, STATES, VECTORS, snapshot_tables, teacher_tables
from stella_assets.teachers.teacher_vectors import REFERENCE, read_reference


@dataclass(frozen=True)
class Needed:
    """What must stay.

    Attributes:
        fingerprints: Teachers that a live recipe or a release uses.
        snapshots: Tags that a live recipe or a release uses, by recipe.
        scores: Tables of scores of pairs that a live recipe or a release uses.
    """

    fingerprints: Set[str]
    snapshots: Set[tuple[str, str]]
    scores: Set[str] = frozenset()


def live_vectors(folders: Iterable[Path]) -> Needed:
    """What the artefacts in some folders need of the vector store.

    Args:
        folders: Of the artefacts that are alive, of any kind; those without vectors need nothing.
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
    return Needed(fingerprints, snapshots, scores)


def collect_garbage(
    workspace: Workspace,
    needed: Needed,
    *,
    dry_run: bool,
    superseded: bool,
    in_use: bool = False,
    given_up: Collection[str] = (),
) -> list[Garbage]:
    """Remove what nothing needs, or with `dry_run` only say what that would be.

    Tags keep what they name, and teachers keep all vectors while anything uses them, or if some were imported. With
    `superseded`, the tags of snapshots that no live recipe and no release uses are removed first.

    Args:
        workspace: Where the store is.
        needed: What must stay.
        dry_run: Only say what would be removed.
        superseded: Also remove snapshots that are not among `needed`.
        in_use: Whether a build runs or was interrupted. Nothing links to what it writes yet, so then all tables and
            tags stay, and only old versions go.
        given_up: Fingerprints whose imported vectors keep no table any more.

    Returns:
        What was removed, or would be.

    Raises:
        StoreError: A table cannot be read; nothing of it is removed.
    """
    found: list[Garbage] = []
    tables = table_names(workspace)
    fingerprints = {*needed.fingerprints, *(set(imported_fingerprints(workspace)) - set(given_up))}
    # Snapshots before teachers: a snapshot that stays can only be repaired from its teachers' vectors, so it keeps
    # their tables, too.
    for name in snapshot_tables(tables):
        recipe = name.removesuffix(SNAPSHOT)
        tags = snapshot_tags(workspace, recipe)
        stale = [tag for tag in tags if superseded and not in_use and (recipe, tag) not in needed.snapshots]
        for tag in tags:
            if tag not in stale:
                snapshot = Snapshot.open(workspace, recipe, tag)
                fingerprints |= {f for by_role in snapshot.fingerprints.values() for f in by_role.values()}
        found += clean_table(workspace, name, stale, dry_run=dry_run)
    for name in teacher_tables(tables):
        if in_use or name.removeprefix(VECTORS) in fingerprints:
            # Old versions only: vectors of texts that no corpus has now may be wanted again, and cost hours or money.
            found += clean_table(workspace, name, [], dry_run=dry_run)
        else:
            found += remove_table(workspace, name, "vectors of a teacher that nothing uses", dry_run=dry_run)
    for name in tables:
        if name.startswith(SCORES) and (in_use or name in needed.scores):
            found += clean_table(workspace, name, [], dry_run=dry_run)
        elif name.startswith(SCORES):
            found += remove_table(workspace, name, "scores of pairs that nothing uses", dry_run=dry_run)
        if name.startswith(STATES) and not in_use:
            found += remove_table(
                workspace, name, "states of evaluated texts, computed again when needed", dry_run=dry_run
            )
    return found
