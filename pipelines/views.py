"""The SQL views over what all steps have written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stella_assets.recipe.tables import all_tables
from stella_assets.storage import views
from stella_assets.storage.tables import ViewFiles
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def refresh_views(workspace: Workspace) -> ViewFiles:
    """Write the DuckDB database of views again, unless it is up to date; docs/sql.md describes the views.

    Args:
        workspace: Where state is kept.

    Returns:
        The files of the views, and those that cannot be read and are not part of any.
    """
    return views.refresh_views(workspace, all_tables())


def connect(workspace: Workspace, snapshot: str | None = None) -> DuckDBPyConnection:
    """A connection for reading, with every view; and with the table `vectors`, if a snapshot is named.

    Args:
        workspace: Where state is kept.
        snapshot: `RECIPE` for its current one, or `RECIPE@TAG`.

    Raises:
        MissingSnapshotError: There is no such snapshot.
    """
    import duckdb

    if snapshot is None:
        # Read-only: any number of readers, and no lock that would stop a run from replacing the file.
        return duckdb.connect(str(workspace.statistics), read_only=True)
    from stella_assets.teachers.catalogue import open_snapshot

    return views.connect_vectors(workspace, all_tables(), {"vectors": open_snapshot(workspace, snapshot).dataset})
