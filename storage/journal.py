"""A journal of what was answered and paid for: appended and flushed to the disk before it is used, and kept for ever.

Each writing process has a file of its own, so that none needs a lock and a kill can only cut the last record of one
file. Vectors are looked up by key; in memory are 8 bytes per row. Nothing of the journal is ever removed here: tables
that are damaged or gone are filled from it again.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stella_assets.storage.errors import DiskSpaceError, VectorError
from stella_assets.storage.files import sync
from stella_assets.storage.journal_frames import Record, Vectors, pack, scan
from stella_assets.storage.keys import Keys, Positions

SUFFIX = ".journal"
_ROW = np.uint64(2**32 - 1)
"""The half of an entry of the index that says the row; the other half has the first 32 bits of its key."""


class Journal:
    """The answered requests of one model: keys, vectors as float16, and what was said of each request.

    Args:
        folder: Made when the first record is appended.
        dim: Dimensions of a vector.

    Attributes:
        damages: What is wrong with records, in words; none of these is used.
        unfinished: By file, bytes at its end that are no whole record: it is being written, or its writer was killed.

    Example:
        >>> journal = Journal(folder, dim=1024)
        >>> journal.append(keys, vectors, {"tokens": 1200})
        >>> positions, known = journal.find(keys)
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder, self.dim = folder, dim
        self.damages: list[str] = []
        self.unfinished: dict[Path, int] = {}
        self._records: list[Record] = []
        self._starts: Positions = np.zeros(1, dtype=np.int64)
        self._index: npt.NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._read_to: dict[Path, int] = {}
        self._whole: dict[int, bool] = {}
        self._file: Path | None = None

    def __len__(self) -> int:
        self.refresh()
        return int(self._starts[-1])

    def append(self, keys: Keys, vectors: npt.NDArray[np.floating[Any]], about: Mapping[str, Any]) -> Vectors:
        """Append a record; it is on the disk when this returns.

        Args:
            keys: Of the rows.
            vectors: One per key.
            about: Plain values that say what is to be remembered of the request.

        Returns:
            The vectors as they will be found again.

        Raises:
            VectorError: A vector is not finite, or of other dimensions.
            DiskSpaceError: The disk is full; the journal is as before.
        """
        if vectors.shape != (len(keys), self.dim) or not np.isfinite(vectors).all():
            raise VectorError(f"{self.folder}: vectors {vectors.shape} are not {len(keys)} finite ones of {self.dim}.")
        kept = vectors.astype(np.float16)
        self._write(pack(keys, kept, about))
        return kept

    def _write(self, content: bytes) -> None:
        if self._file is None or not self._file.exists():  # a repair may have put it aside
            self.folder.mkdir(parents=True, exist_ok=True)
            # The time makes names sort by age; the rest tells apart processes, also of several machines.
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
            self._file = self.folder / f"{stamp}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
            self._file.touch(exist_ok=False)
            sync(self.folder)  # else a power failure could forget the file's name
        try:
            with self._file.open("r+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                # One call writes all, unless the disk is full.
                if file.write(content) < len(content):
                    file.truncate(end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._file))
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DiskSpaceError(
                f"{self._file}: the disk is full. What was answered before is kept; this answer is lost.", self._file
            ) from error

    def refresh(self) -> None:
        """See what this and other processes have appended."""
        new: list[npt.NDArray[np.uint64]] = []
        rows = int(self._starts[-1])
        starts = [rows]
        for file in sorted(self.folder.glob(f"*{SUFFIX}")):
            for record in self._read(file):
                self._records.append(record)
                new.append(_heads(record.keys()) | np.arange(rows, rows + record.rows, dtype=np.uint64))
                rows += record.rows
                starts.append(rows)
        if new:
            self._starts = np.concatenate([self._starts[:-1], np.array(starts, dtype=np.int64)])
            self._index = np.concatenate([self._index, *new])
            self._index.sort()  # in place

    def _read(self, file: Path) -> Iterator[Record]:
        """The records that a file has in addition to those that are known."""
        at = self._read_to.get(file, 0)
        # Of bytes that are no record only what follows them tells whether they are damage or an unfinished write.
        odd = 0
        for found in scan(file, at):
            if isinstance(found, int):
                odd = found
                continue
            if odd:
                self.damages.append(f"{file} at byte {found.offset - odd:,}: {odd:,} bytes are not a record")
                odd = 0
            self._read_to[file] = found.offset + found.size
            if found.dim == self.dim:
                yield found
            else:
                self.damages.append(f"{found}: it has {found.dim} dimensions, not {self.dim}")
        self.unfinished.pop(file, None)
        if odd:
            self.unfinished[file] = odd

    def has(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which keys were answered, `[len(keys)]`, without reading vectors."""
        found = np.zeros(len(keys), dtype=bool)
        for positions, _, _ in self._matches(keys):
            found[positions] = True
        return found

    def find(self, keys: Keys) -> tuple[Positions, Vectors]:
        """The vectors of those keys that were answered.

        Args:
            keys: Each once.

        Returns:
            Positions in `keys`, ascending, and their vectors `[positions, dim]`. Of a key that was answered twice, the
            first answer. Records that were damaged are named in `damages` and not used.
        """
        answered = np.zeros(len(keys), dtype=bool)
        vectors = np.empty((len(keys), self.dim), dtype=np.float16)
        for positions, number, at in self._matches(keys):
            fresh = ~answered[positions]
            if fresh.any() and self._is_whole(number):
                vectors[positions[fresh]] = self._records[number].vectors(at[fresh])
                answered[positions] = True
        return np.flatnonzero(answered), vectors[answered]

    def _matches(self, keys: Keys) -> Iterator[tuple[Positions, int, Positions]]:
        """For each record with some of the keys: positions in `keys`, the record's number, and the rows in it."""
        self.refresh()
        begin = _heads(keys)
        low = np.searchsorted(self._index, begin)
        counts = np.searchsorted(self._index, begin | _ROW, side="right") - low
        # All rows whose keys begin alike: nearly always none or the one.
        positions = np.repeat(np.arange(len(keys)), counts)
        at = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
        rows = (self._index[at] & _ROW).astype(np.int64)
        order = np.argsort(rows, kind="stable")
        positions, rows = positions[order], rows[order]
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        for part in np.split(np.arange(len(rows)), cuts) if len(rows) else ():
            number = int(numbers[part[0]])
            inside = rows[part] - self._starts[number]
            same = self._records[number].keys()[inside] == keys[positions[part]]
            if same.any():
                yield positions[part][same], number, inside[same]

    def _is_whole(self, number: int) -> bool:
        if number not in self._whole:
            self._whole[number] = self._records[number].is_whole()
            if not self._whole[number]:
                rows = self._records[number].rows
                self.damages.append(
                    f"{self._records[number]}: its digest is another one; {rows:,} vectors are not used"
                )
        return self._whole[number]

    def records(self) -> Iterator[Record]:
        """All records, in the order in which they were found."""
        self.refresh()
        yield from self._records

    def verify(self) -> list[str]:
        """Read all records, and name those whose bytes are not as they were written."""
        self.refresh()
        for number in range(len(self._records)):
            self._is_whole(number)
        return list(self.damages)


def _heads(keys: Keys) -> npt.NDArray[np.uint64]:
    """The first 32 bits of each key, in the upper half of an entry of the index."""
    heads = np.ascontiguousarray(keys).view(">u4").reshape(-1, 4)[:, 0].astype(np.uint64)
    return heads << np.uint64(32)
