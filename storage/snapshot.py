"""Reading snapshots: what a recipe's student learns from, one tagged version of a Lance table.

A row is a text; each teacher has a column `vector_<teacher>` of unit vectors in float16. Physical order is an accident
of history, so rows are numbered by their ids, ascending: the same texts have the same numbers in every snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from storage.database import FORMAT, open_table, to_keys, to_numpy, translate_lance_errors
from storage.workspace import Workspace

TABLE = ".concatenated_vectors"
TEXT_COLUMNS = ("id", "text", "source", "section", "role", "split")
VECTOR = "vector_"


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

    def scales(self) -> np.ndarray:
        """Factors `[dim]` float32 that make unit norm of unit vectors side by side.

        `norm(concat(w_k t_k))` is `concat(w_k t_k) / norm(w)`, as every t_k is of unit norm.
        """
        weights = np.array(self.weights) / np.linalg.norm(self.weights)
        return np.repeat(weights, self.dims).astype(np.float32)


def snapshot_schema(
    layout: Layout, lineage: Mapping[str, Any], fingerprints: Mapping[str, Mapping[str, str]]
) -> pa.Schema:
    """The table's schema, with layout and lineage in the metadata, so that a copied folder explains itself.

    Args:
        layout: Teachers, dims and weights.
        lineage: What the snapshot was made of.
        fingerprints: For each teacher, its fingerprint by role; kept with the column.
    """
    fields = [pa.field(name, pa.string()) for name in TEXT_COLUMNS]
    fields.append(pa.field("chars", pa.int32()))
    for teacher, dim in zip(layout.teachers, layout.dims, strict=True):
        about = {"stella.fingerprints": json.dumps(fingerprints[teacher], sort_keys=True)}
        fields.append(pa.field(VECTOR + teacher, pa.list_(pa.float16(), dim), metadata=about))
    metadata = {
        "stella.format": str(FORMAT),
        "stella.layout": json.dumps(layout.__dict__),
        "stella.lineage": json.dumps(dict(lineage), sort_keys=True),
    }
    return pa.schema(fields, metadata=metadata)


class Snapshot:
    """One version of the concatenated vectors."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        metadata = dataset.schema.metadata
        self.version = int(dataset.version)
        self.layout = Layout(**{k: tuple(v) for k, v in json.loads(metadata[b"stella.layout"]).items()})
        self.lineage: dict[str, Any] = json.loads(metadata[b"stella.lineage"])
        self.fingerprints: dict[str, dict[str, str]] = {
            teacher: json.loads(dataset.schema.field(VECTOR + teacher).metadata[b"stella.fingerprints"])
            for teacher in self.layout.teachers
        }

    @classmethod
    def open(cls, workspace: Workspace, recipe: str, tag: str) -> Snapshot:
        """The snapshot of a recipe that `tag` names.

        Raises:
            ValueError: There is no such snapshot.
        """
        tags = snapshot_tags(workspace, recipe)
        if tag not in tags:
            raise ValueError(
                f"{recipe}{TABLE}: no snapshot is tagged {tag}. It has {', '.join(tags) or 'none'}; "
                f"`stella run {recipe} --select concatenated_vectors` makes the recipe's own."
            )
        return cls(open_table(workspace, recipe + TABLE, tag))

    @property
    def dataset(self) -> Any:
        """The Lance dataset, at this version."""
        return self._dataset

    def __len__(self) -> int:
        return int(self._dataset.count_rows())

    @cached_property
    def keys(self) -> np.ndarray:
        """Keys of the texts in the order of rows, 16 bytes each."""
        return self._physical_keys[self.order]

    @cached_property
    def _physical_keys(self) -> np.ndarray:
        with translate_lance_errors(self._dataset.uri):
            return np.concatenate([to_keys([]), *(to_keys(b.column(0)) for b in self.scan(["id"]))])

    @cached_property
    def order(self) -> np.ndarray:
        """Where each row lies in the table, `[rows]`."""
        return np.argsort(self._physical_keys, kind="stable")

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of one split, ascending."""
        import pyarrow.compute as pc

        chosen = [pc.equal(b.column(0), split).to_numpy(zero_copy_only=False) for b in self.scan(["split"])]
        return np.flatnonzero(np.concatenate(chosen)[self.order])

    def text_lengths(self) -> np.ndarray:
        """Characters of each text, `[rows]` int32."""
        return np.concatenate([b.column(0).to_numpy() for b in self.scan(["chars"])])[self.order]

    def take(self, rows: Sequence[int] | np.ndarray, columns: Sequence[str]) -> dict[str, list[Any]]:
        """The named text columns of `rows`, in their order."""
        with translate_lance_errors(self._dataset.uri):
            table = self._dataset.take(self.order[np.asarray(rows, dtype=np.int64)], columns=list(columns))
        return {name: table.column(name).to_pylist() for name in columns}

    def vectors(self, rows: Sequence[int] | np.ndarray, teachers: Sequence[str] | None = None) -> np.ndarray:
        """Unit vectors of the teachers side by side, one contiguous block `[len(rows), sum of dims]` float16.

        `layout.scales()` makes the student's target of a block with all teachers.
        """
        return self.read(rows, [], teachers)[1]

    def read(
        self, rows: Sequence[int] | np.ndarray, columns: Sequence[str], teachers: Sequence[str] | None = None
    ) -> tuple[dict[str, list[Any]], np.ndarray]:
        """Text columns and vectors of `rows` in one read: see `take` and `vectors`."""
        names = [VECTOR + teacher for teacher in (self.layout.teachers if teachers is None else teachers)]
        at = self.order[np.asarray(rows, dtype=np.int64)]
        ascending = np.argsort(at, kind="stable")  # Lance reads ascending rows faster
        with translate_lance_errors(self._dataset.uri):
            table = self._dataset.take(at[ascending], columns=[*columns, *names])
        parts = [to_numpy(table.column(name)) for name in names]
        block = np.empty((len(at), sum(part.shape[1] for part in parts)), dtype=np.float16)
        start = 0
        for part in parts:
            block[ascending, start : start + part.shape[1]] = part
            start += part.shape[1]
        given = np.argsort(ascending)
        return {name: table.column(name).take(given).to_pylist() for name in columns}, block

    def scan(self, columns: Sequence[str], batch_rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """All rows in the order in which they lie, in batches: the quickest way to see every row once."""
        with translate_lance_errors(self._dataset.uri):
            yield from self._dataset.to_batches(columns=list(columns), batch_size=batch_rows)


def snapshot_tags(workspace: Workspace, recipe: str) -> dict[str, int]:
    """The tags of a recipe's snapshots with their versions, oldest first; a repair gives an old one a new version."""
    dataset = open_table(workspace, recipe + TABLE)
    if dataset is None:
        return {}
    with translate_lance_errors(dataset.uri):
        tags = dataset.tags.list()
    ordered = sorted(tags, key=lambda tag: (tags[tag]["created_at"], tags[tag]["version"]))
    return {tag: int(tags[tag]["version"]) for tag in ordered}
