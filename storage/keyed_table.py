"""A Lance table of one value per key, filled unit by unit, so that no value is computed twice.

Filling is `missing -> write -> commit`: the keys without a value are cut into units, a worker computes a unit and
writes it as one file, and one committer makes the files part of the table, in the order of the units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from stella_assets.storage.codecs import Codec, V, describe_type
from stella_assets.storage.database import count_rows, open_table, table_uri
from stella_assets.storage.errors import ConflictError, MissingKeysError, VectorError
from stella_assets.storage.homes import note_home
from stella_assets.storage.keys import Keys, Positions, to_keys
from stella_assets.storage.lance_errors import translate_lance_errors
from stella_assets.storage.locks import file_lock
from stella_assets.storage.memory import return_freed_memory
from stella_assets.storage.sorted_keys import SortedKeys
from stella_assets.storage.table_files import require_whole
from stella_assets.storage.unit_writer import UnitWriter, WrittenUnit, table_schema
from stella_assets.storage.units import UNIT_ROWS, append_units, drop_units
from stella_assets.storage.workspace import Workspace

T = TypeVar("T")

PART_KEYS = 2**20
"""Keys whose positions are in memory at a time."""
ComputeUnits = Callable[[Sequence[Positions]], Iterable[WrittenUnit | None]]
"""Computes and writes units, given the positions of each one's keys; gives one written unit each, in their order, and
None for a unit of which nothing is to be stored."""


def _no_keys() -> Keys:
    return np.empty(0, dtype="S16")


class KeyedTable(Generic[V]):
    """Values by key, one row each.

    A commit is one unit of rows, so a killed process leaves whole units. A lock, which the operating system frees when
    its holder dies, makes writers of one table take turns; each looks again before it computes. In memory are 20 bytes
    per row: the key and where it lies.

    Args:
        workspace: Where the store is.
        name: The table's name.
        codec: Of the value column.
        metadata: What is kept in the table's metadata when it is made.
        column: The value column's name.

    Raises:
        VectorError: The table holds values of another type.
        StoreError: What lies there cannot be used.

    Example:
        >>> table = KeyedTable(workspace, "lengths", Scalars())
        >>> table.fill(ids, read=lambda at: at, compute=lambda at: np.array([len(words[i]) for i in at]))
        >>> table.fetch(ids)
    """

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        codec: Codec[V],
        metadata: Mapping[str, str] | None = None,
        column: str = "value",
    ) -> None:
        self.name = name
        self.codec = codec
        self.uri = table_uri(workspace, name)
        self._workspace = workspace
        self._column = column
        self._schema = table_schema(codec, column, metadata or {})
        self._dataset: Any = None
        self._whole = 0
        self._fragments: list[int] = []
        self._index = SortedKeys()
        self._ends: Positions = np.empty(0, dtype=np.int64)
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def writer(self) -> UnitWriter[V]:
        """What a worker writes units with."""
        return UnitWriter(self.uri, self._schema, self.codec)

    def refresh(self) -> bool:
        """See what was committed since, and say whether there was anything."""
        dataset = open_table(self._workspace, self.name)
        if dataset is None or (self._dataset is not None and dataset.version == self._dataset.version):
            return False
        held = describe_type(dataset.schema.field(self._column).type)
        if held != (expected := describe_type(self.codec.arrow_type)):
            raise VectorError(f"{self.uri}: holds {held}, not {expected}.", self.uri)
        fragments = [fragment.fragment_id for fragment in dataset.get_fragments()]
        # Appending leaves earlier fragments as they are, so usually only the new ones have to be read.
        if self._fragments != fragments[: len(self._fragments)]:  # units were taken out: rows have other numbers now
            self._fragments, self._index, self._ends = [], SortedKeys(), self._ends[:0]
        self._dataset = dataset
        self._read_keys(dataset.get_fragments()[len(self._fragments) :])
        self._fragments = fragments
        return True

    def _read_keys(self, fragments: Sequence[Any]) -> None:
        ends = self._ends.tolist()
        with translate_lance_errors(self.uri):
            for fragment in fragments:
                for batch in fragment.to_batches(columns=["id"]):
                    self._index.add(to_keys(batch.column(0)))
                ends.append(len(self._index))
        self._ends = np.array(ends, dtype=np.int64)

    def missing(self, ids: Sequence[str] | Keys) -> Positions:
        """Positions in `ids`, or in keys made of them, whose values are not in the table, ascending."""
        return self._index.missing(_as_keys(ids))

    def fetch(self, ids: Sequence[str]) -> V:
        """The values of `ids`, in their order and the codec's form.

        Raises:
            MissingKeysError: An id has no value here.
            StoreError: The store is damaged.
        """
        if not len(ids):
            return self.codec.from_arrow(pa.array([], self.codec.arrow_type))
        wanted = to_keys(list(ids))
        if (absent := self.missing(wanted)).size:
            raise MissingKeysError(
                f"{self.name}: {absent.size} of {len(ids)} ids have no value, the first is {ids[absent[0]]}.",
                self.uri,
            )
        if self._whole != self._dataset.version:
            require_whole(self._workspace, self.name)
            self._whole = self._dataset.version
        rows = self._index.rows(wanted)
        order = np.argsort(rows, kind="stable")  # Lance reads ascending rows faster
        with translate_lance_errors(self.uri):
            taken = self._dataset.take(rows[order], columns=[self._column]).column(self._column)
        # The argsort of a permutation is its inverse: rows return to the order of `ids`.
        return self.codec.from_arrow(taken.combine_chunks().take(pa.array(np.argsort(order, kind="stable"))))

    def commit(self, units: Sequence[WrittenUnit]) -> None:
        """Make written units part of the table, in one commit and in their order.

        Units with keys that another machine committed meanwhile are taken out again.

        Raises:
            ConflictError: Another machine changed the table at the same moment, twice.
            StoreError: The place cannot be written.
        """
        fragments = [unit.fragment for unit in units]
        try:
            append_units(self.uri, self._schema, fragments, self._dataset)
        # The units are already written; only the commit has to be tried again, on top of the new table.
        except ConflictError:  # another machine has just made the table
            if not self.refresh():
                raise
            append_units(self.uri, self._schema, fragments, self._dataset)
        self._drop_duplicate_units()

    def fill(
        self,
        ids: Sequence[str] | Keys,
        read: Callable[[Positions], T],
        compute: Callable[[T], V],
        unit_rows: int = UNIT_ROWS,
        on_wait: Callable[[], None] = lambda: None,
    ) -> int:
        """Compute the values that are missing in this process, a unit at a time, and commit each unit.

        Args:
            ids: Hashes, or keys made of them, each once.
            read: Gives what the values are computed from, at some positions of `ids`, ascending; only a unit's inputs
                are in memory.
            compute: Gives a value per row of what `read` gave, in the codec's form.
            unit_rows: Rows of one unit.
            on_wait: Told when another process is writing this table, before waiting for its unit.

        Returns:
            How many values were computed; the others were there.

        Raises:
            VectorError: `compute` gave values that must not be stored. Nothing of its unit is.
            DiskSpaceError: The disk is full. What was committed stays.
        """
        keys, writer = _as_keys(ids), self.writer

        # A generator: a unit is committed before the next one is computed, so a kill loses one unit at most.
        def compute_here(units: Sequence[Positions]) -> Iterator[WrittenUnit]:
            for positions in units:
                yield writer.write(keys[positions], compute(read(positions)))

        return self.fill_units(keys, compute_here, 1, unit_rows, on_wait)

    def fill_units(
        self,
        ids: Sequence[str] | Keys,
        compute: ComputeUnits,
        workers: int,
        unit_rows: int = UNIT_ROWS,
        on_wait: Callable[[], None] = lambda: None,
        given_up: Callable[[], Keys] = _no_keys,
    ) -> int:
        """Have the values that are missing computed and written, `workers` units at a time, and commit each unit.

        The keys without a value are cut into units in their order, and units are committed in that order. So a resumed
        run cuts what is left as the undisturbed one would have, and computes the same batches. The lock is held while
        the units of one round are computed: of two runs, one waits and then finds them.

        Args:
            ids: Hashes, or keys made of them, each once.
            compute: Computes the units of a round and writes them with `writer`; it gives them in their order.
            workers: Units of a round, as many as are computed at once.
            unit_rows: Rows of one unit.
            on_wait: Told when another process is writing this table, before waiting for its round.
            given_up: Keys that have no value and get none; asked again after each pass, as there may be more by then.

        Returns:
            How many values were computed; the others were there.

        Raises:
            VectorError: `compute` gave values that must not be stored. Nothing of their unit is.
            DiskSpaceError: The disk is full. What was committed stays.
            ConflictError: Another machine changed the table at the same moment, twice.
        """
        keys = _as_keys(ids)
        note_home(self._workspace, self.name)
        round_rows = workers * unit_rows
        # Part by part, as positions of all keys would take half the memory of the keys; whole rounds, so that units are
        # cut as if there were no parts.
        part = max(1, PART_KEYS // round_rows) * round_rows
        computed, changed = 0, True
        # Once more after each change: units of another machine may have been taken out.
        while changed:
            changed = False
            for start in range(0, max(1, len(keys)), part):
                todo = start + self._to_compute(keys[start : start + part], given_up)
                while todo.size or self._duplicate_units().size:
                    changed = True
                    with file_lock(self._workspace, self.name, on_wait):
                        # Another process may have filled some of the keys while this one waited for the lock.
                        if self._drop_duplicate_units():
                            todo = todo[self.missing(keys[todo])]
                        now, todo = todo[:round_rows], todo[round_rows:]
                        units = [now[first : first + unit_rows] for first in range(0, len(now), unit_rows)]
                        computed += self._commit_units(units, compute)
        if computed and not self._workspace.remote:
            count_rows(self._workspace, self.name)  # keeps the count, so that quick commands need not open the table
        return computed

    def _commit_units(self, units: Sequence[Positions], compute: ComputeUnits) -> int:
        """Have units computed, commit each, and count their rows."""
        computed = 0
        # strict: a worker that gives too few units must not pass as done.
        for _, written in zip(units, compute(units) if units else (), strict=True):
            if written is not None:
                self.commit([written])
                computed += written.rows
                # What a unit took is kept for the next one otherwise, and grows with every odd size.
                return_freed_memory()
        return computed

    def _to_compute(self, keys: Keys, given_up: Callable[[], Keys]) -> Positions:
        missing = self.missing(keys)
        # Not asked for where nothing is missing: it may have to read a file.
        without = given_up() if missing.size else keys[:0]
        return missing[~np.isin(keys[missing], without)] if without.size else missing

    def _drop_duplicate_units(self) -> bool:
        """Refresh, take out every unit with ids that an earlier one has, and say whether anything changed.

        Locks hold on one machine. Where several share a store, two can compute the same values at once. Whoever sees it
        first takes the later unit out, and its writer finds what else was in it missing.
        """
        changed = self.refresh()
        while (duplicates := self._duplicate_units()).size:
            with suppress(ConflictError):  # another machine has just taken one out
                drop_units(self.uri, self._dataset, duplicates.tolist())
            changed |= self.refresh()
        return changed

    def _duplicate_units(self) -> Positions:
        """Ids of the fragments whose rows are in an earlier one, too, or twice in the same, ascending."""
        # `_ends` holds the end row of each fragment, so the search with side "right" gives the fragment of a row.
        later = self._index.doubled()
        found: Positions = np.array(self._fragments)[np.unique(np.searchsorted(self._ends, later, side="right"))]
        return found


def _as_keys(ids: Sequence[str] | Keys) -> Keys:
    return ids if isinstance(ids, np.ndarray) else to_keys(list(ids))
