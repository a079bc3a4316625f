"""Units of text of bounded size, cut as bytes before they are decoded: one wrong byte costs its own unit."""

from __future__ import annotations

import io
from collections.abc import Iterator

from stella_assets.corpus.sources.base import Malformed

MAX_BYTES = 32 * 2**20
"""A longer line, paragraph or file is not a text but a mistake. It is never held in memory as a whole."""


def lines_of(stream: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """Lines, numbered from 1; None for a line that is too long."""
    number = 0
    while line := stream.readline(MAX_BYTES + 1):
        number += 1
        if len(line) > MAX_BYTES and not line.endswith(b"\n"):
            # The rest is read and thrown away in bounded pieces, up to the line's end.
            while (rest := stream.readline(MAX_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        else:
            yield number, line


def paragraphs_of(stream: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """Paragraphs, which blank lines separate, numbered from 1; None for one that is too long."""
    number, size = 1, 0
    lines: list[bytes] = []
    for _, line in lines_of(stream):
        # A line that is too long makes its paragraph too long as well.
        size += MAX_BYTES + 1 if line is None else len(line)
        if line is not None and not line.strip():
            yield number, b"".join(lines) if size <= MAX_BYTES else None
            number, size, lines = number + 1, 0, []
        elif size <= MAX_BYTES:
            lines.append(line or b"")
    yield number, b"".join(lines) if size <= MAX_BYTES else None


def whole_of(stream: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """The whole content, numbered 1; None if it is too long."""
    content = stream.read(MAX_BYTES + 1)
    yield 1, content if len(content) <= MAX_BYTES else None


def too_long(origin: str) -> Malformed:
    """A unit above `MAX_BYTES`."""
    return Malformed(origin, f"longer than {MAX_BYTES // 2**20} MiB")
