"""A DuckDB database of views over declared tables, and DuckDB over vectors.

A DuckDB file has one writer, so steps write Parquet only. The database holds views alone and is replaced in one
rename: it can be queried while a run is in progress.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stella_assets.storage.files import file_digest, replace_atomically, write_atomically
from stella_assets.storage.tables import View, ViewFiles
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def refresh_views(workspace: Workspace, tables: Iterable[View]) -> ViewFiles:
    """Write the database of views again, for every recipe of the workspace, unless it is up to date.

    A view over files that do not exist yet is empty and has its columns.

    Args:
        workspace: The folder of all state.
        tables: Declared tables.

    Returns:
        The files of the views, and those that cannot be read and are not part of any.
    """
    selects, files = view_definitions(workspace, tables)
    digest = hashlib.sha256(repr(selects).encode()).hexdigest()
    known = workspace.statistics.with_suffix(".sha256")
    if workspace.statistics.is_file() and known.is_file():
        written = known.read_text(encoding="utf-8", errors="replace")
        # Of the database, too, so that a damaged one is written again; it has some hundred kilobytes.
        if written == f"{digest} {file_digest(workspace.statistics)}":
            return files
    import duckdb

    # Removed first: after a kill between the two writes, the digest must not vouch for the old views.
    known.unlink(missing_ok=True)
    # The connection is the inner context, so DuckDB has closed the file before it is renamed.
    with replace_atomically(workspace.statistics) as fresh, duckdb.connect(str(fresh)) as connection:
        _create_views(connection, selects)
    write_atomically(known, f"{digest} {file_digest(workspace.statistics)}")
    return files


def view_definitions(workspace: Workspace, tables: Iterable[View]) -> tuple[dict[str, str], ViewFiles]:
    """The views by name, each as the SELECT that it stands for; and their files."""
    # Absolute paths: the database can be opened from any working folder.
    workspace = Workspace(workspace.root.absolute(), workspace.vectors_uri)
    found = ViewFiles()
    selects = {table.name: table.select(workspace, found) for table in tables}
    return selects, ViewFiles(*(list(dict.fromkeys(files)) for files in (found.read, found.unreadable)))


def connect_vectors(workspace: Workspace, tables: Iterable[View], vectors: Mapping[str, Any]) -> DuckDBPyConnection:
    """A DuckDB connection in memory with every view of `tables`, and Lance datasets as tables.

    Vectors are `FLOAT[dim]`: DuckDB has no float16, so they are cast as they are read. Only the columns that a query
    names are read, and rows stream.

    Args:
        workspace: The folder of all state.
        tables: Declared tables.
        vectors: Lance datasets by the name of their table in SQL.

    Returns:
        An open connection, which the caller closes.

    Example:
        >>> connection = connect_vectors(workspace, tables, {"vectors": dataset})
        >>> connection.sql("SELECT id, array_inner_product(minilm, minilm) FROM vectors LIMIT 5")
    """
    import duckdb

    from stella_assets.storage.float32_dataset import Float32Dataset

    connection = duckdb.connect()
    _create_views(connection, view_definitions(workspace, tables)[0])
    for name, dataset in vectors.items():
        connection.register(name, Float32Dataset(dataset))
    return connection


def _create_views(connection: DuckDBPyConnection, selects: Mapping[str, str]) -> None:
    for name, select in selects.items():
        connection.execute(f"CREATE VIEW {name} AS {select}")
