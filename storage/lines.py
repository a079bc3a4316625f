"""JSON Lines that grow at their end: a row is in the file whole, or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

TAIL = 65_536


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows, all of them or none; they are on the disk when this returns.

    The partial line of a process that was killed while it wrote is removed first.

    Args:
        path: Of the file; it and its folder are made if needed. Writers take turns.
        rows: Of plain values; others become text.

    Raises:
        OSError: It cannot be written, e.g. because the disk is full.
    """
    # `json.dumps` escapes every other character that some readers take for the end of a line.
    content = "".join(json.dumps(row, default=str) + "\n" for row in rows).encode()
    if not content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed: steps of one run append from several processes
        end = _end_of_lines(file)
        file.truncate(end)
        # Without a buffer it is one system call, so there is nothing to see of half a row.
        if file.write(content) < len(content):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def _end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line ends."""
    start = file.seek(0, os.SEEK_END)
    while start:
        start, size = max(0, start - TAIL), min(TAIL, start)
        file.seek(start)
        if (found := file.read(size).rfind(b"\n")) >= 0:
            return start + found + 1
    return 0
