"""Concatenated vectors: a LanceDB table a recipe, with a version and a tag for each (corpus, teachers, weights)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from storage.database import connect, has_table, to_numpy
from storage.home import Home

TEXT_COLUMNS = ("id", "text", "source", "section", "role", "split")


@dataclass(frozen=True)
class Layout:
    """Which teacher lies where in the concatenated vector, and with which weight."""

    teachers: tuple[str, ...]
    dims: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def dim(self) -> int:
        """Dimensions of the concatenated vector."""
        return sum(self.dims)


def snapshot_schema(layout: Layout, about: Mapping[str, Any]) -> pa.Schema:
    """The table's schema, with the layout and its lineage in the metadata, so that a copied folder explains itself."""
    fields = [pa.field(name, pa.string()) for name in TEXT_COLUMNS]
    fields.append(pa.field("vector", pa.list_(pa.float16(), layout.dim)))
    metadata = {"stella.layout": json.dumps(layout.__dict__), "stella.lineage": json.dumps(dict(about))}
    return pa.schema(fields, metadata=metadata)


class Snapshots:
    """The snapshots of one recipe: versions of the table `<recipe>.concatenated_vectors`, each named by a tag."""

    def __init__(self, home: Home, recipe: str) -> None:
        self.name = f"{recipe}.concatenated_vectors"
        self._db = connect(home.lancedb)

    def has(self, tag: str) -> bool:
        """Whether this snapshot was committed."""
        return has_table(self._db, self.name) and tag in self._db.open_table(self.name).tags.list()

    def write(self, tag: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """Write a snapshot as one transaction and tag it; earlier tagged versions stay readable.

        Returns:
            The Lance version that the tag names.
        """
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        table = self._db.create_table(self.name, data=reader, schema=schema, mode="overwrite")
        version = table.version
        if tag in table.tags.list():
            table.tags.update(tag, version)
        else:
            table.tags.create(tag, version)
        return int(version)

    def open(self, tag: str) -> Snapshot:
        """Open the snapshot that `tag` names.

        Raises:
            ValueError: There is no such snapshot.
        """
        if not self.has(tag):
            raise ValueError(f"{self.name}: no snapshot is tagged {tag}. Materialise `concatenated_vectors` first.")
        table = self._db.open_table(self.name)
        table.checkout(tag)
        return Snapshot(table.to_lance())


class Snapshot:
    """One version of the concatenated vectors, read by row number."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.layout = Layout(**{k: tuple(v) for k, v in json.loads(dataset.schema.metadata[b"stella.layout"]).items()})

    def __len__(self) -> int:
        return int(self._dataset.count_rows())

    def column(self, name: str) -> list[str]:
        """One text column, whole; `text` is better taken by row."""
        return self._dataset.to_table(columns=[name]).column(name).to_pylist()

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of one split, ascending."""
        return np.flatnonzero(np.array(self.column("split")) == split)

    def text_lengths(self) -> np.ndarray:
        """Characters of each text, in one streaming pass."""
        import pyarrow.compute as pc

        batches = self._dataset.to_batches(columns=["text"])
        return np.concatenate([pc.utf8_length(batch.column(0)).to_numpy() for batch in batches])

    def take(self, rows: Sequence[int] | np.ndarray, columns: Sequence[str]) -> dict[str, Any]:
        """The named columns of `rows`, in their order: lists of strings, and `vector` as `[n, dim]` float16."""
        table = self._dataset.take(rows, columns=list(columns))
        return {n: to_numpy(table.column(n)) if n == "vector" else table.column(n).to_pylist() for n in columns}

    def vectors(self, batch_rows: int = 8192) -> Iterator[np.ndarray]:
        """All vectors in row order, in blocks `[<= batch_rows, dim]` float16."""
        for batch in self._dataset.to_batches(columns=["vector"], batch_size=batch_rows):
            yield to_numpy(batch.column(0))
