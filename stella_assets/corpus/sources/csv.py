"""Source kind `csv`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from stella_assets.corpus.sources.base import SOURCES, Malformed, Rows, excerpt
from stella_assets.corpus.sources.columns import Columns
from stella_assets.corpus.sources.files import EncodedFileSource, FileSource
from stella_assets.corpus.sources.lines import MAX_BYTES, decompressed


@SOURCES.register
class Csv(EncodedFileSource):
    """Delimited files with a header, also compressed with gzip or zstd.

    Example:
        Of `corpus.sources` in a recipe::

            {name: tickets, kind: csv, path: tickets/, licence: CC-BY-4.0, columns: {text: body}, delimiter: ";"}
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")
    unreadable: ClassVar[tuple[type[Exception], ...]] = (*FileSource.unreadable, csv.Error)

    kind: Literal["csv"]
    columns: Columns = Field(default=Columns(), description="which column holds what")
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="one character between two fields")

    def rows(self, path: Path, section: str) -> Rows:
        """The rows below the header."""
        with decompressed(path) as stream:
            # Bytes of another encoding become surrogates, so that only their own row is lost.
            lines = io.TextIOWrapper(stream, self.encoding, errors="surrogateescape", newline="")
            # The limit belongs to the process; the default of 128 KiB is less than some documents have.
            previous = csv.field_size_limit(MAX_BYTES)
            try:
                # `strict` reports a broken quote, which would otherwise swallow the rows up to the next quote.
                rows = csv.DictReader(lines, delimiter=self.delimiter, restkey="", strict=True)
                for row in rows:
                    origin = f"{path.name}:{rows.line_num}"
                    # `restkey` "" holds surplus fields, None stands for missing ones.
                    if "" in row or None in row.values():
                        fields = len(rows.fieldnames or ())
                        yield Malformed(origin, f"not the {fields} fields of the header", excerpt(row))
                    # The range that `surrogateescape` maps undecodable bytes to.
                    elif any("\udc80" <= c <= "\udcff" for value in row.values() for c in value):
                        yield Malformed(origin, f"not {self.encoding}", excerpt(ascii(row)))
                    else:
                        yield self.columns.text_of(row, self, section, origin)
            finally:
                csv.field_size_limit(previous)
