"""The values of a JSON document that is not one object per line: an array, or objects over several lines."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from stella_assets.corpus.sources import lines

CHUNK = 2**20
SEPARATORS = re.compile(r"[\s,\]\ufeff]*")
# Where a reader can go on behind a broken value: at an object that begins a line or follows another one.
NEXT_OBJECT = re.compile(r"(?:\n|\}\s*,)\s*(?=\{)")


def values_of(stream: io.TextIOBase) -> Iterator[tuple[int, str, Any, str]]:
    """The elements of an array, or values one after another, without the whole document in memory.

    Args:
        stream: Text.

    Yields:
        The line on which a value begins, counted from 1, its text, the value, and what is wrong with it or "". A value
        is wrong as long as it is not JSON; reading goes on at the next object.
    """
    return _Document(stream).values()


class _Document:
    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream, self._decoder = stream, json.JSONDecoder()
        self._text, self._at, self._line, self._ended = "", 0, 1, False

    def values(self) -> Iterator[tuple[int, str, Any, str]]:
        inside = False
        while True:
            gap = SEPARATORS.match(self._text, self._at)
            assert gap is not None, "an empty gap matches, too"
            inside &= "]" not in gap.group()
            self._move(gap.end())
            if self._at == len(self._text):
                if not self._read():
                    return
            elif self._text[self._at] == "[" and not inside:
                inside = True
                self._move(self._at + 1)
            else:
                yield from self._value()

    def _value(self) -> Iterator[tuple[int, str, Any, str]]:
        value, stop, wrong = None, self._at, ""
        try:
            value, stop = self._decoder.raw_decode(self._text, self._at)
            whole = stop < len(self._text) or self._ended  # else a number may go on
        # Deep nesting exhausts the parser's stack, and numbers of thousands of digits are refused by `int`.
        except (ValueError, RecursionError) as error:
            place = getattr(error, "pos", self._at)
            wrong = getattr(error, "msg", "nested too deeply or a number too long")
            # A value that is cut by the end of what was read ends there, or in a string without an end.
            whole = self._ended or not (wrong.startswith("Unterminated") or place >= len(self._text) - 16)
            if not whole and len(self._text) - self._at > lines.MAX_BYTES:
                whole, wrong = True, f"longer than {lines.MAX_BYTES // 2**20} MiB"
        if not whole:
            self._read()
            return
        yield self._line, self._text[self._at : stop if not wrong else self._at + 500], value, wrong
        if wrong:
            self._skip()
        else:
            self._move(stop)

    def _skip(self) -> None:
        self._move(self._at + 1)
        while not (found := NEXT_OBJECT.search(self._text, self._at)):
            # A match may be cut in two.
            self._move(max(len(self._text) - 1, self._at))
            if not self._read():
                self._move(len(self._text))
                return
        self._move(found.end())

    def _move(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to

    def _read(self) -> bool:
        """Read more. As much as is waiting, so that a long value is parsed a few times only."""
        more = self._stream.read(max(CHUNK, len(self._text) - self._at))
        self._ended |= not more
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)
