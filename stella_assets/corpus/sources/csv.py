"""Source kind `csv`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from stella_assets.corpus.sources import lines
from stella_assets.corpus.sources.base import SOURCES, Malformed, Rows, excerpt
from stella_assets.corpus.sources.columns import ColumnSource
from stella_assets.corpus.sources.delimited import Quoting, Records
from stella_assets.corpus.sources.encoded import opened
from stella_assets.corpus.sources.files import EncodedFileSource, FileSource


@SOURCES.register
class Csv(EncodedFileSource, ColumnSource):
    """Delimited files with a header, also compressed.

    Example:
        Of `corpus.sources` in a recipe::

            {name: tickets, kind: csv, path: tickets/, licence: CC-BY-4.0, columns: {text: body}, delimiter: ";"}
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")
    unreadable: ClassVar[tuple[type[Exception], ...]] = (*FileSource.unreadable, csv.Error)

    kind: Literal["csv"]
    delimiter: str = Field(
        default=",",
        min_length=1,
        max_length=1,
        description="one character between two fields; a comma, semicolon, tab or `|` is found by the header",
    )
    # Left out of the settings where it is the default: recipes from before there was a choice keep their identity.
    quoting: Quoting = Field(
        default="auto",
        exclude_if=lambda quoting: quoting == "auto",
        description="`minimal`: fields in quotation marks may hold delimiters and line breaks; `none`: a quotation "
        "mark is an ordinary character; `auto`: `minimal`, but in tab-separated files also a mark that encloses "
        "nothing is an ordinary character",
    )

    @field_validator("delimiter")
    @classmethod
    def _require_other(cls, delimiter: str) -> str:
        if delimiter in '"\r\n':
            raise ValueError("a quotation mark or a line end cannot be between two fields; give another character")
        return delimiter

    def rows(self, path: Path, section: str) -> Rows:
        """The rows below the header."""
        with opened(path, self.encoding) as content:
            # Rows may end with a carriage return though texts have line feeds, and a carriage return may be in a text.
            newline = "" if b"\r" in content.stream.peek(1).split(b"\n")[0].rstrip(b"\r") else "\n"
            # Bytes of another encoding become surrogates, so that only their own row is lost.
            text = io.TextIOWrapper(content.stream, content.encoding, errors="surrogateescape", newline=newline)
            # The limit belongs to the process; the default of 128 KiB is less than some documents have.
            previous = csv.field_size_limit(lines.MAX_BYTES)
            try:
                records = Records(text, self.delimiter, self.quoting)
                names = records.header(self.columns.paths())
                self.columns.names(names)  # refuses two of the same name
                for record in records:
                    origin = f"{path.name}:{record.line}"
                    if wrong := record.wrong or _not_encoded(record.fields, content.name):
                        yield Malformed(origin, wrong, excerpt(ascii(record.fields)), lines=record.lines)
                    else:
                        row = dict(zip(names, record.fields, strict=True))
                        yield from self.columns.texts_of(row, self, section, origin, record.lines)
            finally:
                csv.field_size_limit(previous)


def _not_encoded(fields: list[str], encoding: str) -> str:
    for value in fields:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                byte = ord(value[error.start]) - 0xDC00
                return f"not {encoding}: 0x{byte:02x}" if byte != 0xFF else f"not {encoding}"
    return ""
