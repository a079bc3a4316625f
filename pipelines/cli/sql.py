"""`stella sql`: questions to DuckDB."""

from __future__ import annotations

import csv
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from stella_assets.core.errors import UserError
from stella_assets.pipelines.cli.console import format_cell
from stella_assets.pipelines.cli.printing import note, out, print_json, visible
from stella_assets.pipelines.cli.values import csv_value, json_value, unique_names
from stella_assets.pipelines.environment import prepare_environment

Rows = list[tuple[Any, ...]]
OPEN = "Add --allow-files if the query is yours: it may then read and write any file, and load extensions."


class QueryError(UserError):
    """A query that is refused."""


class TableFormat(StrEnum):
    """How `stella sql` prints."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def sql(
    query: Annotated[str, typer.Argument(metavar="SQL", help="For example: SELECT * FROM vector_stats")],
    output: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.TABLE,
    vectors: Annotated[
        str | None, typer.Option(metavar="RECIPE[@TAG]", help="Also the table `vectors` of this snapshot.")
    ] = None,
    allow_files: Annotated[
        bool, typer.Option("--allow-files", help="Let the query read and write any file, and load extensions.")
    ] = False,
) -> None:
    """Ask DuckDB about corpus, vectors, training and scores; also while a run is in progress."""
    workspace = prepare_environment()
    import duckdb

    from stella_assets.pipelines.views import connect, refresh_views
    from stella_assets.storage.queries import NoQueryError, QueryRefusedError, parse, read_only, restrict

    # Steps in progress add files, so the views are renewed before each query.
    files = refresh_views(workspace)
    for file in files.unreadable:
        note(f"{file} cannot be read, so no view has it.")
    with connect(workspace, vectors) as connection:
        if not allow_files:
            restrict(connection, files.read)
        try:
            statements = parse(connection, query)
            result = connection.execute(query) if allow_files else read_only(connection, statements)
            names = [column[0] for column in (result and result.description) or []]
            rows = result.fetchall() if names else []
        except NoQueryError as empty:
            raise QueryError(str(empty), "Give it in SQL and in UTF-8, e.g. SELECT * FROM scores") from None
        except (QueryRefusedError, duckdb.PermissionException) as refused:
            raise QueryError(str(refused), OPEN) from None
        except duckdb.Error as error:
            # Most refused queries name a view that does not exist.
            views = ", ".join(row[0] for row in connection.execute("SHOW TABLES").fetchall())
            raise QueryError(str(error), f"\nViews: {views}") from None
    _print_rows(unique_names(names), rows, output)


def _print_rows(names: list[str], rows: Rows, output: TableFormat) -> None:
    match output:
        case TableFormat.JSON:
            print_json([dict(zip(names, map(json_value, row), strict=True)) for row in rows])
        case TableFormat.CSV:
            # Exactly what the store has where a program reads it; a terminal would obey control characters.
            shown = visible if sys.stdout.isatty() else str
            writer = csv.writer(sys.stdout)
            writer.writerow(map(shown, names))
            writer.writerows([shown(csv_value(cell)) for cell in row] for row in rows)
        case TableFormat.TABLE:
            table = Table(*names)
            for row in rows:
                table.add_row(*map(format_cell, row))
            out.print(table)
