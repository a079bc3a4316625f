"""Source kind `jsonl`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from stella_assets.corpus.sources.base import SOURCES, Malformed, Rows, excerpt
from stella_assets.corpus.sources.columns import Columns, ColumnSource
from stella_assets.corpus.sources.encoded import Content, opened
from stella_assets.corpus.sources.files import EncodedFileSource
from stella_assets.corpus.sources.json_values import values_of
from stella_assets.corpus.sources.lines import lines_of, too_long

Parsed = Iterator[tuple[int, Any] | Malformed]
"""The line of a value, and the value."""
JSON_NAMES = {list: "an array", str: "text", int: "a number", float: "a number", bool: "a boolean", type(None): "null"}
"""What people who write JSON call a value."""


@SOURCES.register
class JsonLines(EncodedFileSource, ColumnSource):
    """JSON Lines files, one object per line, and JSON arrays of objects, also compressed.

    Example:
        Of `corpus.sources` in a recipe::

            {name: forum, kind: jsonl, path: "forum/*.jsonl.zst", licence: CC-BY-SA-4.0, columns: {text: post.body}}
    """

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")

    kind: Literal["jsonl"]
    columns: Columns = Field(default=Columns(), description="which key holds what")

    def rows(self, path: Path, section: str) -> Rows:
        """The objects of a file; blank lines are skipped."""
        with opened(path, self.encoding) as content:
            begin = content.stream.peek(1)[:1000].lstrip()
            # An array, or an object over several lines.
            whole = begin.startswith(b"[") or begin.split(b"\n")[0].strip() == b"{"
            for item in (_of_document if whole else _of_lines)(content, path.name):
                if isinstance(item, Malformed):
                    yield item
                    continue
                number, row = item
                origin = f"{path.name}:{number}"
                if isinstance(row, dict):
                    yield from self.columns.texts_of(row, self, section, origin)
                else:
                    yield Malformed(origin, f"{JSON_NAMES[type(row)]}, not an object", excerpt(row))


def _of_lines(content: Content, name: str) -> Parsed:
    for number, line in lines_of(content.stream):
        origin = f"{name}:{number}"
        if line is None:
            yield too_long(origin)
            continue
        try:
            # Files that were put one behind the other have marks inside.
            text = line.decode(content.encoding).lstrip("\ufeff")
            if text.strip():
                yield number, json.loads(text)
        except UnicodeDecodeError as error:
            yield content.not_encoded(error, origin)
        # Deep nesting exhausts the parser's stack, and numbers of thousands of digits are refused by `int`; one such
        # line must not end the file.
        except (ValueError, RecursionError) as error:
            why = getattr(error, "msg", "nested too deeply or a number too long")
            if why == "Extra data" and text.lstrip().startswith("{"):
                # Objects that were written one behind the other are rows of their own.
                for _, part, value, wrong in values_of(io.StringIO(text)):
                    yield Malformed(origin, f"not JSON ({wrong})", excerpt(part)) if wrong else (number, value)
            else:
                yield Malformed(origin, f"not JSON ({why})", excerpt(text))


def _of_document(content: Content, name: str) -> Parsed:
    stream = io.TextIOWrapper(content.stream, content.encoding, errors="surrogateescape")
    for number, text, value, wrong in values_of(stream):
        why = wrong and f"not JSON ({wrong})"
        try:
            # Bytes of another encoding are half surrogates here.
            text.encode()
        except UnicodeEncodeError:
            why = f"not {content.name}"
        yield Malformed(f"{name}:{number}", why, excerpt(text)) if why else (number, value)
