"""The records of a journal's files: what one answered request looks like on the disk, and how it is found again.

A record is a head of 64 bytes, then JSON about the request, the keys, and the vectors as float16, all little-endian.
The head begins with eight bytes that mark it and the SHA-256 of everything after it. So a record whose bytes were
changed is noticed, and the ones behind it are still found. The JSON has a checksum of its own, as it is read alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stella_assets.storage.keys import Keys

MARK = b"\x93STELLA\x01"
KEY_BYTES, VALUE_BYTES = 16, 2
_HEAD = struct.Struct("<8s32sQIIII")
"""Mark, digest, bytes of the record and of the JSON, rows, dimensions, CRC of the JSON."""
_DIGESTED = 40
"""The digest covers what follows it."""
READ_BYTES = 2**20
"""Of one read, when the next mark is looked for behind damage."""

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Record:
    """Where a record lies.

    Attributes:
        file: The file.
        offset: Of its first byte.
        size: All its bytes.
        about_bytes: Bytes of its JSON.
        rows: How many keys and vectors it has.
        dim: Dimensions of a vector.
        about_sum: CRC-32 of its JSON; 0 in records of older versions.
    """

    file: Path
    offset: int
    size: int
    about_bytes: int
    rows: int
    dim: int
    about_sum: int

    def __str__(self) -> str:
        return f"{self.file} at byte {self.offset:,}"

    def about(self) -> dict[str, Any]:
        """What was said of the request.

        Raises:
            ValueError: Its bytes are not those that were written.
        """
        content = read_bytes(self.file, self.offset + _HEAD.size, self.about_bytes)
        if self.about_sum not in (0, zlib.crc32(content)):
            raise ValueError(f"{self}: what it says of its request was changed")
        said: dict[str, Any] = json.loads(content)
        return said

    def keys(self) -> Keys:
        """Its keys, `[rows]`; nothing else of it is read."""
        return np.frombuffer(read_bytes(self.file, self._keys_at, self.rows * KEY_BYTES), dtype="S16")

    def vectors(self, at: npt.NDArray[np.int64]) -> Vectors:
        """The vectors of some of its rows, `[len(at), dim]`."""
        first, last = int(at.min()), int(at.max())
        width = self.dim * VALUE_BYTES
        start = self._keys_at + self.rows * KEY_BYTES + first * width
        block = np.frombuffer(read_bytes(self.file, start, (last - first + 1) * width), dtype="<f2")
        return block.reshape(-1, self.dim)[at - first]

    def is_whole(self) -> bool:
        """Whether its bytes are as they were written; all are read."""
        content = read_bytes(self.file, self.offset, self.size)
        return len(content) == self.size and hashlib.sha256(content[_DIGESTED:]).digest() == content[8:_DIGESTED]

    @property
    def _keys_at(self) -> int:
        return self.offset + _HEAD.size + self.about_bytes


def pack(keys: Keys, vectors: Vectors, about: Mapping[str, Any]) -> bytes:
    """A record of keys and vectors, one vector per key."""
    said = json.dumps(dict(about), sort_keys=True).encode()
    content = [said, np.ascontiguousarray(keys).tobytes(), np.ascontiguousarray(vectors, dtype="<f2").tobytes()]
    size = _HEAD.size + sum(map(len, content))
    sizes = _HEAD.pack(MARK, bytes(32), size, len(said), *vectors.shape, zlib.crc32(said))[_DIGESTED:]
    return b"".join([MARK, hashlib.sha256(b"".join([sizes, *content])).digest(), sizes, *content])


def scan(file: Path, offset: int) -> Iterator[Record | int]:
    """The records of a file from an offset on, in their order.

    Yields:
        A record, or a number of bytes that are not one: damage where a record follows; at the end of the file a record
        that is being written, or that a killed process did not finish.
    """
    end = file.stat().st_size
    while offset < end:
        record = _record(file, offset, end)
        if record is None:
            following = _next_mark(file, offset + 1, end)
            yield (end if following is None else following) - offset
            offset = end if following is None else following
            continue
        yield record
        offset += record.size


def read_bytes(file: Path, offset: int, size: int) -> bytes:
    """Bytes of a file, fewer at its end."""
    # Read, not mapped: pages of a map would count as memory of the process for as long as it is open.
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def is_unfinished(file: Path, offset: int) -> bool:
    """Whether the end of a file is the beginning of a record, as a killed process leaves it.

    Args:
        file: The file.
        offset: Where no record is.
    """
    head = read_bytes(file, offset, _HEAD.size)
    return _head(file, offset) is not None if len(head) == _HEAD.size else MARK.startswith(head[: len(MARK)])


def _head(file: Path, offset: int) -> Record | None:
    """A record as its head says it, whether the file has all of it or not."""
    head = read_bytes(file, offset, _HEAD.size)
    if len(head) < _HEAD.size or not head.startswith(MARK):
        return None
    _, _, size, about_bytes, rows, dim, about_sum = _HEAD.unpack(head)
    # Stated twice, so that a changed number of rows is noticed without reading the record.
    if size != _HEAD.size + about_bytes + rows * (KEY_BYTES + dim * VALUE_BYTES):
        return None
    return Record(file, offset, size, about_bytes, rows, dim, about_sum)


def _record(file: Path, offset: int, end: int) -> Record | None:
    record = _head(file, offset)
    return record if record and offset + record.size <= end else None


def _next_mark(file: Path, offset: int, end: int) -> int | None:
    """Where the next record begins that can be one."""
    while offset < end:
        # Blocks overlap, so that a mark across their border is found.
        block = read_bytes(file, offset, READ_BYTES + len(MARK) - 1)
        at = block.find(MARK)
        while at >= 0:
            if _record(file, offset + at, end) is not None:
                return offset + at
            at = block.find(MARK, at + 1)
        offset += READ_BYTES
    return None
