"""Teacher vectors by content: one LanceDB table a fingerprint, one row a text, and no text embedded twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock

from storage.database import connect, has_table, to_arrow, to_numpy
from storage.home import Home

UNIT_ROWS = 32_768
"""Rows of one unit of work and one commit: small appends cost more than what they write."""


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
            f"{origin}: answered {rows} texts with vectors of shape {vectors.shape}, not ({rows}, {dim})."
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise VectorError(f"{origin}: {bad.size} vectors hold NaN or infinity, the first is row {bad[0]} of its unit.")
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(np.abs(norms - 1) > 1e-3)
    if bad.size:
        raise VectorError(f"{origin}: {bad.size} vectors are not of unit norm; the first has norm {norms[bad[0]]:.6f}.")


def stored_rows(home: Home, fingerprint: str) -> int:
    """How many vectors the store has of a fingerprint, without reading them."""
    database, name = connect(home.lancedb), f"teacher_vectors.{fingerprint}"
    return int(database.open_table(name).count_rows()) if has_table(database, name) else 0


class VectorCache:
    """The vectors of one teacher fingerprint, keyed by the hash of the text; unit norm, kept as float16.

    A commit is one unit of rows, so a killed process leaves whole units. A lock, which the operating system frees when
    its holder dies, makes writers of one fingerprint take turns; each looks again before it computes.
    """

    def __init__(self, home: Home, fingerprint: str, dim: int) -> None:
        self.name = f"teacher_vectors.{fingerprint}"
        self.dim = dim
        self._home = home
        self._db = connect(home.lancedb)
        self._table: Any = self._db.open_table(self.name) if has_table(self._db, self.name) else None
        self._ids = np.empty(0, dtype="S32")
        self._rows = np.empty(0, dtype=np.int64)
        if self._table is not None:
            self._read_ids()

    def __len__(self) -> int:
        return len(self._ids)

    def _read_ids(self) -> None:
        """Read the ids, 40 bytes a row, sorted, so that a look-up is a binary search."""
        self._dataset = self._table.to_lance()
        batches = [batch.column(0).to_pylist() for batch in self._dataset.to_batches(columns=["id"])]
        ids = np.array([text_id for batch in batches for text_id in batch], dtype="S32")
        self._rows = np.argsort(ids, kind="stable")
        self._ids = ids[self._rows]

    def _refresh(self) -> None:
        """See what other processes have committed."""
        if self._table is None:
            if not has_table(self._db, self.name):
                return
            self._table = self._db.open_table(self.name)
        self._table.checkout_latest()
        if self._table.count_rows() != len(self._ids):
            self._read_ids()

    def missing(self, ids: Sequence[str]) -> np.ndarray:
        """Positions in `ids` whose vectors are not in the store."""
        wanted = np.array(ids, dtype="S32")
        if not len(self._ids):
            return np.arange(len(wanted))
        at = np.searchsorted(self._ids, wanted).clip(max=len(self._ids) - 1)
        return np.flatnonzero(self._ids[at] != wanted)

    def fetch(self, ids: Sequence[str]) -> np.ndarray:
        """The vectors of `ids`, `[len(ids), dim]` float16, in their order.

        Raises:
            VectorError: An id has no vector here.
        """
        if not len(ids):
            return np.empty((0, self.dim), dtype=np.float16)
        if (absent := self.missing(ids)).size:
            raise VectorError(
                f"{self.name}: {absent.size} of {len(ids)} texts have no vector, the first is {ids[absent[0]]}. "
                "Materialise the teacher's vectors for this corpus first."
            )
        rows = self._rows[np.searchsorted(self._ids, np.array(ids, dtype="S32"))]
        return to_numpy(self._dataset.take(rows, columns=["vector"]).column("vector"))

    def fill(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        encode: Callable[[list[str]], np.ndarray],
        unit_rows: int = UNIT_ROWS,
    ) -> int:
        """Embed the texts that have no vector yet, a unit at a time, and commit each unit.

        Units are fixed stretches of `ids`, so a resumed run encodes the same batches as an undisturbed one.

        Args:
            ids: Hashes of the texts, each once.
            texts: The texts, in the same order.
            encode: Gives unit-norm float32 `[n, dim]` for n texts.
            unit_rows: Rows of one unit.

        Returns:
            How many texts were embedded; the others were there.

        Raises:
            VectorError: `encode` gave vectors that must not be stored. Nothing of its unit is.
        """
        embedded = 0
        for start in range(0, len(ids), unit_rows):
            unit = ids[start : start + unit_rows]
            if not self.missing(unit).size:
                continue
            self._home.locks.mkdir(parents=True, exist_ok=True)
            with FileLock(self._home.locks / f"{self.name}.lock"):
                self._refresh()
                todo = self.missing(unit)
                if todo.size:
                    vectors = encode([texts[start + i] for i in todo])
                    check_vectors(vectors, len(todo), self.dim, self.name)
                    self._append([unit[i] for i in todo], vectors)
            embedded += int(todo.size)
        return embedded

    def _append(self, ids: list[str], vectors: np.ndarray) -> None:
        rows = pa.table({"id": pa.array(ids, pa.string()), "vector": to_arrow(vectors)})
        if self._table is None:
            self._table = self._db.create_table(self.name, rows)
        else:
            self._table.add(rows)
        self._read_ids()
