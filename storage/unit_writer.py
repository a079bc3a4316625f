"""Writing one unit of a table in any process: the part of filling a table that workers do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic

import pyarrow as pa

from stella_assets.storage.codecs import Codec, V
from stella_assets.storage.database import FORMAT, SUFFIX
from stella_assets.storage.keys import Keys, to_ids
from stella_assets.storage.units import write_unit


@dataclass(frozen=True)
class WrittenUnit:
    """A unit that a worker wrote and nobody committed yet; it is plain data that travels between processes.

    Attributes:
        fragment: Lance's metadata of the file.
        rows: How many rows it has.
    """

    fragment: Mapping[str, Any]
    rows: int


@dataclass(frozen=True)
class UnitWriter(Generic[V]):
    """Writes units of a table without a lock, in any process; it is picklable.

    Attributes:
        uri: The table's folder.
        schema: The table's schema: `id`, then the value.
        codec: Of the value.
    """

    uri: str
    schema: pa.Schema
    codec: Codec[V]

    def write(self, keys: Keys, values: V) -> WrittenUnit:
        """Write one unit of rows as a file with its digest.

        Args:
            keys: Of the rows, each once.
            values: One per key, in the codec's form.

        Raises:
            VectorError: A value must not be stored.
            DiskSpaceError: The disk is full.
        """
        # Before anything is written: what was committed once is trusted by every later run.
        self.codec.check(values, len(keys), self.uri.rsplit("/", 1)[-1].removesuffix(SUFFIX))
        rows = pa.Table.from_arrays([to_ids(keys), self.codec.to_arrow(values)], schema=self.schema)
        return WrittenUnit(write_unit(self.uri, rows, self.schema), len(keys))


def table_schema(codec: Codec[Any], column: str, metadata: Mapping[str, str]) -> pa.Schema:
    """A table of `id` and a value column, with the format and the caller's metadata."""
    fields = [("id", pa.string()), (column, codec.arrow_type)]
    return pa.schema(fields, metadata={"stella.format": str(FORMAT), **codec.metadata, **metadata})
