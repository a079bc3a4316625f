"""Removing what nothing needs: old versions and uncommitted files of a table, or a whole table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stella_assets.storage.database import drop_table, open_table, table_uri
from stella_assets.storage.homes import other_homes
from stella_assets.storage.lance_errors import translate_lance_errors
from stella_assets.storage.locks import file_lock
from stella_assets.storage.seals import DIGESTS
from stella_assets.storage.units import fragment_files, session
from stella_assets.storage.workspace import Workspace


@dataclass(frozen=True)
class Garbage:
    """What was removed, or would be.

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


def clean_table(
    workspace: Workspace, name: str, stale_tags: Callable[[], Iterable[str]], *, dry_run: bool
) -> list[Garbage]:
    """Remove tags, the versions that no tag names, and the files that no version names, e.g. of killed writers.

    The newest version stays.

    Args:
        workspace: Where the store is.
        name: The table.
        stale_tags: Gives the tags to remove first. It is asked under the table's lock, as a run may have set or needed
            one meanwhile.
        dry_run: Only say what would be removed.

    Returns:
        What was removed, or with `dry_run` would be; empty if there is nothing to remove.

    Raises:
        StoreError: The table cannot be read; nothing of it is removed.
    """
    with file_lock(workspace, name):  # nobody on this machine is writing now
        dataset = open_table(workspace, name)
        if dataset is None:
            return _remove_uncommitted(workspace, name, dry_run=dry_run)
        stale = set(stale_tags())
        with translate_lance_errors(dataset.uri):
            garbage = _unneeded(workspace, dataset, name, stale)
            if not dry_run:
                # Tags first: a version with a tag is never removed, and a kill in between leaves untagged versions.
                for tag in stale:
                    dataset.tags.delete(tag)
                # Unverified files are in no manifest. The lock shows that no writer of this home is about to commit
                # them; another home may be, so then Lance's default of seven days holds.
                alone = not _has_other_writers(workspace, name)
                dataset.cleanup_old_versions(timedelta(0), delete_unverified=alone, error_if_tagged_old_versions=False)
                _remove_digests(dataset)
        return garbage


def remove_table(
    workspace: Workspace, name: str, what: str, is_needed: Callable[[], bool], *, dry_run: bool
) -> list[Garbage]:
    """Remove a table that nothing uses.

    Args:
        workspace: Where the store is.
        name: The table.
        what: What its rows are, for the report.
        is_needed: Asked under the table's lock: a build may have begun to write it, or ended, meanwhile.
        dry_run: Only say what would be removed.

    Returns:
        What was removed, or with `dry_run` would be.

    Raises:
        StoreError: The table cannot be read; nothing of it is removed.
    """
    with file_lock(workspace, name):
        if is_needed():
            return []
        dataset = open_table(workspace, name)
        if dataset is None:
            return _remove_uncommitted(workspace, name, dry_run=dry_run)
        sizes = dataset.all_files().read_all().column("size_bytes").to_pylist()
        rows = dataset.count_rows()
        if not dry_run:
            drop_table(workspace, name)
        return [Garbage(name, f"{rows:,} {what}", len(sizes), sum(sizes))]


def _unneeded(workspace: Workspace, dataset: Any, name: str, stale: Set[str]) -> list[Garbage]:
    """Files that neither the newest version names nor one with a tag that stays.

    What no version at all names may be what another home is about to commit: Lance keeps it for a week.
    """
    tags = {tag for tag in dataset.tags.list() if tag not in stale}
    # Versions share files, so what goes is what no remaining version names, not what a removed one named.
    kept = {path for version in (None, *tags) for path in _files(open_table(workspace, name, version))}
    listed = dataset.all_files().read_all().to_pylist()
    # The same rule as `cleanup_old_versions`, so that a dry run announces what a real run removes.
    if _has_other_writers(workspace, name):
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
    named = f" and of the tags {', '.join(sorted(stale))}" if stale else ""
    what = f"files of versions that no tag names or that were never committed{named}"
    return [Garbage(name, what, len(sizes), sum(sizes))]


def _has_other_writers(workspace: Workspace, name: str) -> bool:
    """Whether another home may be writing a table, whose lock this one does not see."""
    return workspace.remote or bool(other_homes(workspace, name))


def _files(dataset: Any) -> set[str]:
    return {path for fragment in dataset.get_fragments() for path in fragment_files(fragment)}


def _remove_digests(dataset: Any) -> None:
    files = session(dataset.uri)
    digests = files.list(DIGESTS)  # before the files: a file is there before its digest
    kept = {path.rsplit("/", 1)[-1] for path in dataset.all_files().read_all().column("path").to_pylist()}
    for path in digests:
        name = path.rsplit("/", 1)[-1].removesuffix(".json")
        if name not in kept:
            files.delete_file(path)


def _remove_uncommitted(workspace: Workspace, name: str, *, dry_run: bool) -> list[Garbage]:
    """A table whose first writer was killed before its first commit, or is another home's that is still writing."""
    if _has_other_writers(workspace, name):
        return []
    paths = session(table_uri(workspace, name)).list()
    if not dry_run:
        drop_table(workspace, name)
    return [Garbage(name, "files that were never committed", len(paths), 0)]
