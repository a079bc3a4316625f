"""`stella sql`: questions to DuckDB."""

from __future__ import annotations

import csv
import json
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from stella_assets.core.errors import UserError
from stella_assets.pipelines.cli.console import format_cell
from stella_assets.pipelines.cli.printing import note, out
from stella_assets.pipelines.environment import prepare_environment

Rows = list[tuple[Any, ...]]


class QueryError(UserError):
    """A query that DuckDB refuses."""


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
) -> None:
    """Ask DuckDB about corpus, vectors, training and scores; also while a run is in progress."""
    workspace = prepare_environment()
    import duckdb

    from stella_assets.pipelines.views import connect, refresh_views

    # Steps in progress add files, so the views are renewed before each query.
    for file in refresh_views(workspace):
        note(f"{file} cannot be read, so no view has it.")
    with connect(workspace, vectors) as connection:
        try:
            result = connection.execute(query)
        except duckdb.Error as error:
            # Most refused queries name a view that does not exist.
            views = ", ".join(row[0] for row in connection.execute("SHOW TABLES").fetchall())
            raise QueryError(str(error), f"\nViews: {views}") from None
        names = [column[0] for column in result.description or []]
        rows = result.fetchall()
    _print_rows(names, rows, output)


def _print_rows(names: list[str], rows: Rows, output: TableFormat) -> None:
    match output:
        case TableFormat.JSON:
            # `print`, since Rich would wrap lines. Dates and decimals become text.
            print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1, default=str))
        case TableFormat.CSV:
            writer = csv.writer(sys.stdout)
            writer.writerow(names)
            writer.writerows(rows)
        case TableFormat.TABLE:
            table = Table(*names)
            for row in rows:
                table.add_row(*("" if cell is None else format_cell(cell) for cell in row))
            out.print(table)
