"""Teacher vectors by content: one Lance table a fingerprint, one row a text, and no text embedded twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from storage.database import (
    FORMAT,
    ConflictError,
    open_table,
    table_uri,
    to_arrow,
    to_keys,
    to_numpy,
    translate_lance_errors,
)
from storage.locks import file_lock
from storage.units import write_unit
from storage.workspace import Workspace

UNIT_ROWS = 32_768
"""Rows of one unit of work and one commit: small appends cost more than what they write."""

T = TypeVar("T")
Check = Callable[[np.ndarray, int, int, str], None]
PREFIX, STATES = "teacher_vectors.", "pooled_states."
NORM_TOLERANCE = 1e-3


class VectorError(ValueError):
    """Vectors that must not enter the store, or that it does not have."""


def check_vectors(vectors: np.ndarray, rows: int, dim: int, origin: str) -> None:
    """Refuse vectors that are misshapen, not finite, or not of unit norm.

    Args:
        vectors: `[rows, dim]` float32.
        rows: Rows expected, one a text.
        dim: Dimensions expected.
        origin: Who made them, for the message.

    Raises:
        VectorError: The vectors are not `rows` unit vectors of `dim` dimensions.
    """
    if vectors.shape != (rows, dim):
        raise VectorError(
            f"{origin}: answered {rows} texts with vectors of shape {vectors.shape}, not ({rows}, {dim}). The model "
            "is broken, or another than the recipe says; nothing was stored."
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise VectorError(
            f"{origin}: {bad.size} vectors hold NaN or infinity, the first is row {bad[0]} of its unit. Try dtype "
            "float32; nothing was stored."
        )
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(np.abs(norms - 1) > NORM_TOLERANCE)
    if bad.size:
        raise VectorError(
            f"{origin}: {bad.size} vectors are not of unit norm; the first has norm {norms[bad[0]]:.6f}. Normalise "
            "them; nothing was stored."
        )


def vector_schema(dim: int, about: Mapping[str, Any]) -> pa.Schema:
    """A table of `id` and `vector`, with the format and what the teacher is in the metadata."""
    metadata = {"stella.format": str(FORMAT), "stella.teacher": json.dumps(dict(about), sort_keys=True)}
    return pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float16(), dim))], metadata=metadata)


def stored_rows(workspace: Workspace, fingerprint: str) -> int:
    """How many vectors the store has of a fingerprint, without reading them."""
    dataset = open_table(workspace, PREFIX + fingerprint)
    return int(dataset.count_rows()) if dataset is not None else 0


def _ignore() -> None:
    return None


class VectorTable:
    """The vectors of one teacher fingerprint, keyed by the hash of the text; unit norm, kept as float16.

    A commit is one unit of rows, so a killed process leaves whole units. A lock, which the operating system frees when
    its holder dies, makes writers of one fingerprint take turns, unit by unit; each looks again before it computes.
    In memory are 24 bytes a row: the key and where it lies.

    Args:
        workspace: Where the store is.
        fingerprint: Names everything that a vector depends on beside the text.
        dim: Dimensions.
        about: What the fingerprint stands for; kept in the table's metadata.

    Raises:
        VectorError: The table holds vectors of another dimension.
        StoreError: What lies there cannot be used.
    """

    prefix = PREFIX
    check: Check = staticmethod(check_vectors)

    def __init__(
        self, workspace: Workspace, fingerprint: str, dim: int, about: Mapping[str, Any] | None = None
    ) -> None:
        self.name = self.prefix + fingerprint
        self.dim = dim
        self.uri = table_uri(workspace, self.name)
        self._workspace = workspace
        self._schema = vector_schema(dim, about or {})
        self._dataset: Any = None
        self._seen: list[int] = []
        self._keys = np.empty(0, dtype="S16")
        self._rows = np.empty(0, dtype=np.int64)
        self._ends = np.empty(0, dtype=np.int64)
        self.refresh()

    def __len__(self) -> int:
        return len(self._keys)

    def refresh(self) -> bool:
        """See what was committed since, and say whether there was anything."""
        dataset = open_table(self._workspace, self.name)
        if dataset is None or (self._dataset is not None and dataset.version == self._dataset.version):
            return False
        held = dataset.schema.field("vector").type.list_size
        if held != self.dim:
            raise VectorError(f"{self.uri}: holds vectors of {held} dimensions, and the teacher has {self.dim}.")
        fragments = [fragment.fragment_id for fragment in dataset.get_fragments()]
        if self._seen != fragments[: len(self._seen)]:  # units were taken out: rows have other numbers now
            self._seen, self._keys, self._rows, self._ends = [], self._keys[:0], self._rows[:0], self._ends[:0]
        self._dataset = dataset
        self._read_keys(dataset.get_fragments()[len(self._seen) :])
        self._seen = fragments
        return True

    def _read_keys(self, fragments: Sequence[Any]) -> None:
        with translate_lance_errors(self.uri):
            units = [[to_keys(b.column(0)) for b in f.to_batches(columns=["id"])] for f in fragments]
        sizes = [sum(map(len, unit)) for unit in units]
        self._ends = np.concatenate([self._ends, len(self._keys) + np.cumsum(sizes, dtype=np.int64)])
        keys = np.concatenate([self._keys, *(chunk for unit in units for chunk in unit)])
        rows = np.concatenate([self._rows, np.arange(len(self._keys), len(keys))])
        order = np.argsort(keys, kind="stable")  # nearly sorted runs; of doubled ids the first stays first
        self._keys, self._rows = keys[order], rows[order]

    def missing(self, ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """Positions in `ids`, or in keys made of them, whose vectors are not in the store, ascending."""
        wanted = ids if isinstance(ids, np.ndarray) else to_keys(list(ids))
        if not len(self._keys):
            return np.arange(len(wanted))
        at = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        return np.flatnonzero(self._keys[at] != wanted)

    def fetch(self, ids: Sequence[str]) -> np.ndarray:
        """The vectors of `ids`, `[len(ids), dim]` float16, in their order.

        Raises:
            VectorError: An id has no vector here.
            StoreError: The store is damaged.
        """
        if not len(ids):
            return np.empty((0, self.dim), dtype=np.float16)
        wanted = to_keys(list(ids))
        if (absent := self.missing(wanted)).size:
            raise VectorError(
                f"{self.name}: {absent.size} of {len(ids)} texts have no vector, the first is {ids[absent[0]]}. "
                "Materialise the teacher's vectors for this corpus first."
            )
        rows = self._rows[np.searchsorted(self._keys, wanted)]
        order = np.argsort(rows, kind="stable")
        with translate_lance_errors(self.uri):
            taken = to_numpy(self._dataset.take(rows[order], columns=["vector"]).column("vector"))
        vectors = np.empty_like(taken)
        vectors[order] = taken
        return vectors

    def fill(
        self,
        ids: Sequence[str] | np.ndarray,
        read: Callable[[np.ndarray], list[T]],
        encode: Callable[[list[T]], np.ndarray],
        unit_rows: int = UNIT_ROWS,
        on_wait: Callable[[], None] = _ignore,
    ) -> int:
        """Embed the texts that have no vector yet, a unit at a time, and commit each unit.

        The work list is cut into units in its order, and units are committed in that order. So a resumed run cuts what
        is left as the undisturbed one would have, and encodes the same batches.

        Args:
            ids: Hashes of the texts, or keys made of them, each once.
            read: Gives the texts at some positions of `ids`, ascending; only a unit's texts are in memory.
            encode: Gives unit-norm float32 `[n, dim]` for what `read` gave.
            unit_rows: Rows of one unit.
            on_wait: Told when another process is writing this table, before waiting for its unit.

        Returns:
            How many texts were embedded; the others were there.

        Raises:
            VectorError: `encode` gave vectors that must not be stored. Nothing of its unit is.
            DiskSpaceError: The disk is full. What was committed stays.
        """
        keys = ids if isinstance(ids, np.ndarray) else to_keys(list(ids))
        embedded, todo = 0, self.missing(keys)
        while todo.size or self._doubled_units().size:
            with file_lock(self._workspace, self.name, on_wait):
                if self._drop_duplicate_units():
                    todo = todo[self.missing(keys[todo])]
                unit, todo = todo[:unit_rows], todo[unit_rows:]
                if unit.size:
                    vectors = encode(read(unit))
                    self.check(vectors, len(unit), self.dim, self.name)
                    self._commit(keys[unit], vectors)
                    embedded += int(unit.size)
            if not todo.size:
                todo = self.missing(keys)  # those of a unit that was taken out
        return embedded

    def _commit(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        rows = pa.Table.from_arrays([to_ids(keys), to_arrow(vectors)], schema=self._schema)
        unit = write_unit(self.uri, rows, self._schema)
        try:
            append_units(self.uri, self._schema, [unit], self._dataset)
        except ConflictError:  # another machine has just made the table
            if not self.refresh():
                raise
            append_units(self.uri, self._schema, [unit], self._dataset)
        self._drop_duplicate_units()

    def _drop_duplicate_units(self) -> bool:
        """Refresh, take out every unit with ids that an earlier one has, and say whether anything changed.

        Locks hold on one machine. Where several share a store, two can embed the same texts at once. Whoever sees it
        first takes the later unit out, and its writer finds what else was in it missing.
        """
        changed = self.refresh()
        while (doubled := self._doubled_units()).size:
            with suppress(ConflictError):  # another machine has just taken one out
                drop_units(self.uri, self._dataset, doubled.tolist())
            changed |= self.refresh()
        return changed

    def _doubled_units(self) -> np.ndarray:
        """Ids of the fragments whose rows are in an earlier one, too, or twice in the same, ascending."""
        later = self._rows[1:][self._keys[1:] == self._keys[:-1]]
        return np.array(self._seen)[np.unique(np.searchsorted(self._ends, later, side="right"))]


def check_states(states: np.ndarray, rows: int, dim: int, origin: str) -> None:
    """Refuse pooled states that are misshapen or do not fit float16.

    Raises:
        VectorError: The states are not `[rows, dim]`, or too large or no numbers.
    """
    if states.shape != (rows, dim):
        raise VectorError(f"{origin}: {rows} texts have states of shape {states.shape}, not ({rows}, {dim}).")
    if not np.isfinite(states.astype(np.float16)).all():
        raise VectorError(f"{origin}: states hold NaN, or entries above {np.finfo(np.float16).max}.")


class StateTable(VectorTable):
    """A student's pooled states by text, for evaluation: of any norm, and made again when they are gone."""

    prefix = STATES
    check: Check = staticmethod(check_states)


class VectorsByRole:
    """A teacher's vectors, where the role of a text decides its prompt and so its fingerprint and table.

    Args:
        workspace: Where the store is.
        fingerprints: The fingerprint for each role; roles with equal ones share a table.
        dim: Dimensions.
        describe: What the fingerprint of a role stands for; asked when its table is made.
    """

    def __init__(
        self,
        workspace: Workspace,
        fingerprints: Mapping[str, str],
        dim: int,
        describe: Callable[[str], Mapping[str, Any]] = lambda _role: {},
    ) -> None:
        self.fingerprints = dict(fingerprints)
        self.dim = dim
        self._workspace = workspace
        self._describe = describe
        self._tables: dict[str, VectorTable] = {}

    def table(self, role: str) -> VectorTable:
        """The table of a role, opened when it is first asked for."""
        fingerprint = self.fingerprints[role]
        if fingerprint not in self._tables:
            about = self._describe(role) if stored_rows(self._workspace, fingerprint) == 0 else {}
            self._tables[fingerprint] = VectorTable(self._workspace, fingerprint, self.dim, about)
        return self._tables[fingerprint]

    def fetch(self, ids: Sequence[str], roles: Sequence[str]) -> np.ndarray:
        """The vectors of `ids`, `[len(ids), dim]` float16, in their order.

        Raises:
            VectorError: An id has no vector in its role.
        """
        vectors = np.empty((len(ids), self.dim), dtype=np.float16)
        for role in sorted(set(roles)):
            rows = [i for i, r in enumerate(roles) if r == role]
            vectors[rows] = self.table(role).fetch([ids[i] for i in rows])
        return vectors


def to_ids(keys: np.ndarray) -> pa.StringArray:
    """Keys as the hexadecimal ids that they were made of."""
    text = np.ascontiguousarray(keys).tobytes().hex()
    offsets = np.arange(0, len(text) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(text.encode()))


def append_units(uri: str, schema: pa.Schema, units: Sequence[Mapping[str, Any]], dataset: Any) -> None:
    """Make units that workers wrote part of a table, in one commit; `dataset` is None for a table yet to be made.

    Raises:
        ConflictError: The table was made by another machine meanwhile.
        StoreError: The place cannot be written.
    """
    import lance
    from lance.fragment import FragmentMetadata

    fragments = [FragmentMetadata.from_json(json.dumps(unit)) for unit in units]
    operation = lance.LanceOperation
    with translate_lance_errors(uri):
        if dataset is None:
            lance.LanceDataset.commit(uri, operation.Overwrite(schema, fragments), max_retries=0)
        else:
            lance.LanceDataset.commit(uri, operation.Append(fragments), read_version=dataset.version)


def drop_units(uri: str, dataset: Any, fragments: Sequence[int]) -> None:
    """Take damaged units out of a table, in one commit; their files stay until garbage collection.

    Raises:
        ConflictError: Another machine took one out meanwhile.
    """
    import lance

    with translate_lance_errors(uri):
        operation = lance.LanceOperation.Delete([], list(fragments), "stella: damaged units")
        lance.LanceDataset.commit(uri, operation, read_version=dataset.version)
