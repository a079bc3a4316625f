"""Garbage collection: what no tag, no release and no live recipe needs."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from storage.database import connect, open_table, table_names, table_uri, translate_lance_errors
from storage.integrity import snapshot_tables, teacher_tables
from storage.locks import file_lock
from storage.snapshot import TABLE, Snapshot, snapshot_tags
from storage.units import DIGESTS, session
from storage.vectors import PREFIX, STATES
from storage.workspace import Workspace


@dataclass(frozen=True)
class Needed:
    """What must stay.

    Attributes:
        fingerprints: Teachers that a live recipe or a release uses.
        snapshots: Tags that a live recipe or a release uses, by recipe.
    """

    fingerprints: Set[str]
    snapshots: Set[tuple[str, str]]


@dataclass(frozen=True)
class Garbage:
    """Something that can go.

    Attributes:
        table: The table.
        what: What of it, in words.
        files: Files.
        bytes: What they take.
    """

    table: str
    what: str
    files: int
    bytes: int


def collect(workspace: Workspace, needed: Needed, *, dry_run: bool, superseded: bool) -> list[Garbage]:
    """Free what nothing needs, or with `dry_run` only say what that would be.

    Tags keep what they name, and teachers keep all vectors while anything uses them. With `superseded`, the tags of
    snapshots that no live recipe and no release uses are removed first.

    Raises:
        StoreError: A table cannot be read; nothing of it is freed.
    """
    found: list[Garbage] = []
    tables = table_names(workspace)
    fingerprints = set(needed.fingerprints)
    for name in snapshot_tables(tables):
        recipe = name.removesuffix(TABLE)
        tags = snapshot_tags(workspace, recipe)
        stale = [tag for tag in tags if superseded and (recipe, tag) not in needed.snapshots]
        for tag in tags:
            if tag not in stale:
                snapshot = Snapshot.open(workspace, recipe, tag)
                fingerprints |= {f for by_role in snapshot.fingerprints.values() for f in by_role.values()}
        found += _clean(workspace, name, stale, dry_run)
    for name in teacher_tables(tables):
        if name.removeprefix(PREFIX) in fingerprints:
            found += _clean(workspace, name, [], dry_run)
        else:
            found += _drop(workspace, name, dry_run, "vectors of a teacher that nothing uses")
    for name in tables:
        if name.startswith(STATES):
            found += _drop(workspace, name, dry_run, "states of evaluated texts, made again when needed")
    return found


def _clean(workspace: Workspace, name: str, stale_tags: Iterable[str], dry_run: bool) -> list[Garbage]:
    """Versions that no tag names, and files that no version names: what killed writers left."""
    with file_lock(workspace, name):  # nobody on this machine is writing now
        dataset = open_table(workspace, name)
        if dataset is None:
            return [] if dry_run else _drop_uncommitted(workspace, name)
        stale = set(stale_tags)
        with translate_lance_errors(dataset.uri):
            garbage = _unneeded(workspace, dataset, name, stale)
            if not dry_run:
                for tag in stale:
                    dataset.tags.delete(tag)
                dataset.cleanup_old_versions(
                    timedelta(0), delete_unverified=not workspace.remote, error_if_tagged_old_versions=False
                )
                _forget_digests(dataset)
        return garbage


def _unneeded(workspace: Workspace, dataset: Any, name: str, stale: Set[str]) -> list[Garbage]:
    """Files that neither the newest version names nor one with a tag that stays.

    In an object store, what no version at all names may be what another machine is about to commit: Lance lets it lie
    for a week.
    """
    tags = {tag for tag in dataset.tags.list() if tag not in stale}
    kept = {path for version in (None, *tags) for path in _files(open_table(workspace, name, version))}
    listed = dataset.all_files().read_all().to_pylist()
    if workspace.remote:
        versions = [known["version"] for known in dataset.versions()]
        committed = {path for version in versions for path in _files(open_table(workspace, name, version))}
        week_ago = datetime.now(UTC) - timedelta(days=7)
        listed = [row for row in listed if row["path"] in committed or row["last_modified"] < week_ago]
    sizes = [
        row["size_bytes"]
        for row in listed
        if row["path"].startswith(("data/", "_deletions/")) and row["path"] not in kept
    ]
    if not sizes:
        return []
    named = f" and of snapshots {', '.join(sorted(stale))}" if stale else ""
    return [
        Garbage(
            name, f"files of versions that no tag names or that were never committed{named}", len(sizes), sum(sizes)
        )
    ]


def _files(dataset: Any) -> set[str]:
    fragments = dataset.get_fragments()
    data = {f"data/{file.path}" for fragment in fragments for file in fragment.data_files()}
    return data | {deletion for fragment in fragments if (deletion := fragment.deletion_file())}


def _forget_digests(dataset: Any) -> None:
    files = session(dataset.uri)
    digests = files.list(DIGESTS)  # before the files: a file is there before its digest
    kept = {path.rsplit("/", 1)[-1] for path in dataset.all_files().read_all().column("path").to_pylist()}
    for path in digests:
        name = path.rsplit("/", 1)[-1].removesuffix(".json")
        if name not in kept:
            files.delete_file(path)


def _drop(workspace: Workspace, name: str, dry_run: bool, what: str) -> list[Garbage]:
    """A table that nothing uses."""
    with file_lock(workspace, name):
        dataset = open_table(workspace, name)
        if dataset is None:
            return [] if dry_run else _drop_uncommitted(workspace, name)
        sizes = dataset.all_files().read_all().column("size_bytes").to_pylist()
        rows = dataset.count_rows()
        if not dry_run:
            with translate_lance_errors(workspace.vectors):
                connect(workspace.vectors).drop_table(name)
        return [Garbage(name, f"{rows:,} {what}", len(sizes), sum(sizes))]


def _drop_uncommitted(workspace: Workspace, name: str) -> list[Garbage]:
    """A table whose first writer was killed before its first commit, or is another machine's that is still writing."""
    if workspace.remote:
        return []
    files = session(table_uri(workspace, name))
    paths = files.list()
    for path in paths:
        files.delete_file(path)
    return [Garbage(name, "files that were never committed", len(paths), 0)]
