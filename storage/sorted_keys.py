"""Keys in order, with the row that each has in a table: 20 bytes a row, and little more while rows are added."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stella_assets.storage.keys import Keys, Positions, find_sorted

BLOCK = 2**19
"""Keys that are looked up at a time: results of all keys at once would take as much memory as the keys."""


class SortedKeys:
    """Where the rows of a table are, by key; rows are numbered in the order in which they are added.

    Example:
        >>> index = SortedKeys()
        >>> index.add(keys)
        >>> index.rows(keys[:2]).tolist()
        [0, 1]
    """

    def __init__(self) -> None:
        self._keys: Keys = np.empty(0, dtype="S16")
        # Lance numbers the rows of a table with 32 bits, too.
        self._rows: npt.NDArray[np.uint32] = np.empty(0, dtype=np.uint32)
        self._doubled: list[npt.NDArray[np.uint32]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Keys) -> None:
        """Add the next rows, which may repeat a key: of these the earlier row counts."""
        if not len(keys):
            return
        before, count = len(self._keys), len(keys)
        order = np.argsort(keys, kind="stable")
        fresh, rows = keys[order], (before + order).astype(np.uint32)
        # Behind an equal key that is there already.
        at = np.searchsorted(self._keys, fresh, side="right")
        held = np.zeros(count, dtype=bool)
        if before:
            held = self._keys[np.maximum(at - 1, 0)] == fresh
        held[1:] |= fresh[1:] == fresh[:-1]
        if held.any():
            self._doubled.append(rows[held])
        # Grown in place: the system moves large blocks without copying them, and needs no room for both.
        self._keys.resize(before + count, refcheck=False)
        self._rows.resize(before + count, refcheck=False)
        if at[0] < before:
            self._make_room(at, before)
        places = at + np.arange(count)
        self._keys[places], self._rows[places] = fresh, rows

    def _make_room(self, at: Positions, before: int) -> None:
        """Move what lies behind the places of new keys; the last stretch first, so that none is overwritten."""
        ends = np.append(at[1:], before)
        for number in np.flatnonzero(ends > at)[::-1]:
            start, end, shift = int(at[number]), int(ends[number]), int(number) + 1
            for values in (self._keys, self._rows):
                values[start + shift : end + shift] = values[start:end]

    def missing(self, keys: Keys) -> Positions:
        """Positions of the keys that it does not have, ascending."""
        found = [np.empty(0, dtype=np.int64)]
        for start in range(0, len(keys), BLOCK):
            block = keys[start : start + BLOCK]
            found.append(start + np.flatnonzero(~find_sorted(self._keys, block)[1]))
        return np.concatenate(found)

    def rows(self, keys: Keys) -> Positions:
        """The rows of keys that it has."""
        return self._rows[np.searchsorted(self._keys, keys)].astype(np.int64)

    def doubled(self) -> Positions:
        """The rows whose key an earlier row has, too, ascending."""
        return np.sort(np.concatenate([np.empty(0, np.uint32), *self._doubled])).astype(np.int64)
