"""DuckDB over the store: the views of statistics, and the vectors themselves as float32 arrays."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from storage.snapshot import TABLE, Snapshot, snapshot_tags
from storage.statistics import view_definitions
from storage.workspace import Workspace


def connect_vectors(workspace: Workspace, recipe: str, tag: str | None = None) -> Any:
    """A DuckDB connection in memory with every view of docs/sql.md, and the table `vectors` of a snapshot.

    `vectors` has the text columns and `vector_<teacher>` as `FLOAT[dim]`: DuckDB has no float16, so they are cast as
    they are read. Only the columns that a query names are read, and rows stream.

    Args:
        workspace: Where the store is.
        recipe: The recipe's name.
        tag: The snapshot; the recipe's current one when left out, else its newest.

    Raises:
        ValueError: There is no such snapshot.
    """
    import duckdb

    connection = duckdb.connect()
    for name, select in view_definitions(workspace).items():
        connection.execute(f"CREATE VIEW {name} AS {select}")
    snapshot = Snapshot.open(workspace, recipe, tag or current_snapshot(workspace, recipe))
    connection.register("vectors", _Float32Dataset(snapshot.dataset))
    return connection


def current_snapshot(workspace: Workspace, recipe: str) -> str:
    """The tag of the snapshot that a recipe uses now; its newest where no artefact says which.

    Raises:
        ValueError: The recipe has no snapshot.
    """
    link = workspace.current(recipe, "concatenated_vectors")
    if link.exists():
        return link.resolve().name
    tags = snapshot_tags(workspace, recipe)
    if not tags:
        raise ValueError(
            f"{recipe}{TABLE}: there is no snapshot. `stella run {recipe} --select concatenated_vectors` makes one."
        )
    return next(reversed(tags))


class _Float32Dataset(pads.Dataset):
    """A Lance dataset whose float16 columns are read as float32, in the form of Arrow that DuckDB scans."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._casts = {
            field.name: f"arrow_cast({field.name}, 'FixedSizeList({field.type.list_size}, Float32)')"
            for field in dataset.schema
            if pa.types.is_fixed_size_list(field.type)
        }

    @property
    def schema(self) -> pa.Schema:
        """The schema as DuckDB sees it."""
        return pa.schema(
            [
                pa.field(
                    field.name,
                    pa.list_(pa.float32(), field.type.list_size) if field.name in self._casts else field.type,
                )
                for field in self._dataset.schema
            ]
        )

    def scanner(self, columns: list[str] | None = None, filter: Any = None, **_: Any) -> Any:  # noqa: A002 (Arrow's name)
        """A scanner of the named columns."""
        chosen = self._dataset.schema.names if columns is None else columns
        try:
            return self._dataset.scanner(columns={name: self._casts.get(name, name) for name in chosen}, filter=filter)
        except pa.ArrowInvalid:  # Lance cannot filter by a float16 column; Arrow filters what was cast
            everything = self._dataset.scanner(
                columns={name: self._casts.get(name, name) for name in self.schema.names}
            )
            return pads.InMemoryDataset(everything.to_reader()).scanner(columns=chosen, filter=filter)
