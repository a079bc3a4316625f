"""The registry of declared tables, and the tables that are not of any one room: runs and artefacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import pyarrow as pa

from stella_assets.storage.tables import FLAG, INT, REAL, TEXT, TIME, LineTable, ManifestTable, View
from stella_assets.storage.workspace import Workspace

T = TypeVar("T", bound=View)

# By name, so that a module that is imported twice does not make two views.
_declared: dict[str, View] = {}


def declare(table: T) -> T:
    """Add a table to the SQL views, under its name.

    Args:
        table: A `Table`, `LineTable` or `ManifestTable` of `storage.tables`.

    Returns:
        The table, to be assigned to a name.

    Example:
        >>> FUNNEL = declare(Table("funnel", "corpus", "funnel.parquet", pa.schema([("rule", TEXT), ("texts", INT)])))
    """
    _declared[table.name] = table
    return table


def declared_tables() -> list[View]:
    """The tables of the modules that were imported so far; see `stella_assets.recipe.tables.all_tables`."""
    return list(_declared.values())


ARTEFACTS = declare(
    ManifestTable(
        name="artefacts",
        assets="**",
        columns={
            "asset": "identity->>'$.asset'",
            "key": "key",
            "digest": "digest",
            "recipe": "run_info->>'$.recipe'",
            "made_at": "CAST(run_info->>'$.made_at' AS TIMESTAMP)",
            "seconds": "CAST(run_info->>'$.seconds' AS DOUBLE)",
            "peak_memory_mib": "CAST(run_info->>'$.peak_memory_mib' AS BIGINT)",
            "metrics": "metrics",
        },
    )
)
# JSON Lines, not Parquet: a line is appended while a run goes on, also by several processes.
RUNS = declare(
    LineTable(
        name="runs",
        folder="runs",
        schema=pa.schema(
            {
                "run_id": TEXT, "recipe": TEXT, "asset": TEXT, "started_at": TIME, "seconds": REAL, "succeeded": FLAG,
                "reused": FLAG, "digest": TEXT, "peak_memory_mib": INT, "error": TEXT,
            }
        ),
    )
)  # fmt: skip


def record_run(workspace: Workspace, run_id: str, row: Mapping[str, Any]) -> None:
    """Append what a run did for one asset to the run's record, for the view `runs`."""
    RUNS.append(workspace, run_id, row)
