"""Dagster's instance, which keeps runs and events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from stella_assets.pipelines.environment import check_postgres
from stella_assets.storage.locks import file_lock
from stella_assets.storage.workspace import Workspace


@contextmanager
def open_instance(workspace: Workspace) -> Iterator[dg.DagsterInstance]:
    """The UI's instance. Opening creates its SQLite files; two processes must not both do so.

    Args:
        workspace: Where state is kept; `DAGSTER_HOME` is set already.

    Yields:
        The instance; it is closed at the end of the block.

    Raises:
        EnvironmentVariableError: `STELLA_POSTGRES` is set and cannot be used.
    """
    check_postgres()
    # SQLite reports a locked or half-migrated database when two processes create its tables.
    with file_lock(workspace, "dagster"):
        instance = dg.DagsterInstance.get()
    with instance:
        yield instance
