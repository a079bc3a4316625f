"""Source kind `jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from stella_assets.corpus.sources.base import SOURCES, Malformed, RawText, Rows, excerpt
from stella_assets.corpus.sources.columns import Columns
from stella_assets.corpus.sources.files import EncodedFileSource
from stella_assets.corpus.sources.lines import decompressed, lines_of, not_encoded, too_long


@SOURCES.register
class JsonLines(EncodedFileSource):
    """JSON Lines files, one object per line, also compressed with gzip or zstd.

    Example:
        Of `corpus.sources` in a recipe::

            {name: forum, kind: jsonl, path: "forum/*.jsonl.zst", licence: CC-BY-SA-4.0, columns: {text: post.body}}
    """

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")

    kind: Literal["jsonl"]
    columns: Columns = Field(default=Columns(), description="which key holds what")

    def rows(self, path: Path, section: str) -> Rows:
        """The object of each line; blank lines are skipped."""
        with decompressed(path) as stream:
            for number, line in lines_of(stream):
                origin = f"{path.name}:{number}"
                row = too_long(origin) if line is None else self._row(line, section, origin)
                if row is not None:
                    yield row

    def _row(self, line: bytes, section: str, origin: str) -> RawText | Malformed | None:
        try:
            content = line.decode(self.encoding)
        except UnicodeDecodeError as error:
            return not_encoded(self.encoding, error, origin)
        if not content.strip():
            return None
        try:
            row = json.loads(content)
        # Deep nesting exhausts the parser's stack; one such line must not end the run.
        except (json.JSONDecodeError, RecursionError) as error:
            return Malformed(origin, f"not JSON ({getattr(error, 'msg', 'nested too deeply')})", excerpt(content))
        if not isinstance(row, dict):
            return Malformed(origin, f"{type(row).__name__}, not an object", excerpt(content))
        return self.columns.text_of(row, self, section, origin)
