"""Queries of people over the views, which read the files of the views and nothing else.

A query may come from somebody else's page or from a model. DuckDB reads and writes files in almost every statement,
loads extensions, and reaches the network, so all of that is closed before a query is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stella_assets.storage.errors import StorageError
from stella_assets.storage.tables import pattern, quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement

CLOSED = (
    "enable_external_access",
    "autoinstall_known_extensions",
    "autoload_known_extensions",
    "allow_community_extensions",
    "allow_persistent_secrets",
    # Otherwise a query could name the variables of this program as tables.
    "python_enable_replacements",
)
"""Settings of DuckDB that are turned off."""
LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)
"""What DuckDB writes before a line of the query that it quotes."""


class QueryRefusedError(StorageError):
    """A query that does more than read the views."""


class NoQueryError(StorageError):
    """A text that is not a query."""


def restrict(connection: DuckDBPyConnection, files: Iterable[Path]) -> None:
    """Let a connection read some files and no others, from now on.

    Args:
        connection: With its views, whose files are `files`.
        files: What may be read.
    """
    # DuckDB compares with the list both the pattern that a view names and the file that it opens.
    allowed = dict.fromkeys(text for path in files for text in (pattern(path), str(path)))
    connection.execute(f"SET allowed_paths = [{', '.join(map(quote, allowed))}]")
    for setting in CLOSED:
        connection.execute(f"SET {setting} = false")
    connection.execute("SET lock_configuration = true")


def parse(connection: DuckDBPyConnection, query: str) -> list[Statement]:
    """The statements of a query; nothing is run.

    Args:
        connection: Any.
        query: One or several statements.

    Raises:
        NoQueryError: There is no statement, or the text is not Unicode.
        duckdb.Error: It is not SQL.
    """
    try:
        statements = connection.extract_statements(query)
    except TypeError:  # bytes of a command line that are not UTF-8 arrive as halves of surrogates
        raise NoQueryError("the query is not UTF-8.") from None
    if not statements:
        raise NoQueryError("the query has no statement.")
    return statements


def read_only(connection: DuckDBPyConnection, statements: Iterable[Statement]) -> Any:
    """Run a query that reads, on a restricted connection.

    Args:
        connection: After `restrict`.
        statements: Of the query.

    Returns:
        The result of the last one.

    Raises:
        QueryRefusedError: A statement does something else than reading. Those before it were run.
        duckdb.Error: DuckDB refuses it.
    """
    import duckdb

    for statement in statements:
        # Without its values, PIVOT creates a type of them first.
        if statement.type == duckdb.StatementType.MULTI:
            raise QueryRefusedError("PIVOT needs its values, e.g. PIVOT funnel ON rule IN ('kept') USING sum(texts).")
        # SHOW, DESCRIBE, SUMMARIZE, VALUES and FROM are SELECT statements to DuckDB.
        if statement.type != duckdb.StatementType.SELECT:
            raise QueryRefusedError(f"{statement.type.name} is not a query: only SELECT, FROM, SHOW and the like are.")
        # A file that may be read may also be written, and `WITH x AS (COPY ...)` is a SELECT statement, too.
        if any("COPY" in operator for operator in _operators(connection, statement.query)):
            raise QueryRefusedError("COPY is not a query: it writes a file.")
        result = connection.execute(statement)
    return result


def _operators(connection: DuckDBPyConnection, query: str) -> Iterator[str]:
    """What DuckDB would do for a query, without doing it."""
    import duckdb

    try:
        # In a line of its own: DuckDB's messages quote the line in which it found a mistake.
        ((_, plan),) = connection.execute(f"EXPLAIN (FORMAT json)\n{query}").fetchall()
    except duckdb.Error as error:
        raise type(error)(LINE.sub(lambda found: f"LINE {int(found[1]) - 1}:", str(error))) from None
    nodes: list[dict[str, Any]] = json.loads(plan)
    while nodes:
        node = nodes.pop()
        yield node["name"]
        nodes += node.get("children", [])
