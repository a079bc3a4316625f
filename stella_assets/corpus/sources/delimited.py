"""The rows of a delimited file. A row that cannot be read costs its own line, and reading goes on behind it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from stella_assets.corpus.sources import lines

QUOTE = '"'
RETURN = "\udfff"
"""Stands for a carriage return inside a line, which `csv` takes for the end of a row. No text has it."""
DELIMITERS = (",", ";", "\t", "|")
Quoting = Literal["auto", "minimal", "none"]


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it was read.

    Attributes:
        line: Its first line, counted from 1.
        lines: How many lines it has.
        fields: Their values; of a broken row, what its first line holds.
        wrong: Why it is not a row, or "".
    """

    line: int
    lines: int
    fields: list[str]
    wrong: str = ""


@dataclass
class Records:
    """Reads a delimited file record by record.

    Attributes:
        stream: Text whose line ends are kept.
        delimiter: Between two fields.
        quoting: `minimal` or `none`; `auto` is `minimal`, but a line with a tab as delimiter, or with a single column,
            whose quotation marks enclose nothing is taken as it is.
        width: Fields of a row; 0 before the header is read.
    """

    stream: io.TextIOBase
    delimiter: str
    quoting: Quoting
    width: int = 0
    _line: int = 0
    _waiting: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Record]:
        """Every record that is not blank."""
        while line := self._next():
            if line.isspace():
                continue
            if len(line) > lines.MAX_BYTES and not line.endswith("\n"):
                yield self._too_long(line)
            elif QUOTE in line and self.quoting != "none":
                yield self._quoted(line)
            else:
                fields = self._split(line)
                yield self._judged(fields, 1)

    def header(self, wanted: Sequence[str]) -> list[str]:
        """Read the names of the columns.

        The delimiter becomes another one if the wanted columns are there only with that. A line `sep=;`, which Excel
        writes and reads, says which it is.
        """
        first = self._next()
        while first and first.isspace():
            first = self._next()
        if first.lower().startswith("sep=") and len(first.strip("\r\n")) == 5:
            self.delimiter, first = first[4], self._next()
        for delimiter in (self.delimiter, *DELIMITERS):
            names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
            if set(wanted) <= set(names):
                self.delimiter = delimiter
                break
        # Whoever quotes the names of columns quotes texts, too.
        if QUOTE in first and self.quoting == "auto":
            self.quoting = "minimal"
        self._waiting.append(first)
        self._line -= 1
        for record in self:
            self.width = len(record.fields)
            return [name.strip() for name in record.fields]
        return []

    def _next(self) -> str:
        line = self._waiting.pop() if self._waiting else self.stream.readline(lines.MAX_BYTES + 1)
        self._line += bool(line)
        return line

    def _put_back(self, taken: list[str]) -> None:
        self._waiting.extend(reversed(taken))
        self._line -= len(taken)

    def _split(self, line: str) -> list[str]:
        """The fields of a line without quoting."""
        line = line.removesuffix("\n").removesuffix("\r")
        # A text of a single column may have the delimiter.
        return [line] if self.width == 1 and self.quoting == "auto" else line.split(self.delimiter)

    def _judged(self, fields: list[str], lines_taken: int) -> Record:
        fits = not self.width or len(fields) == self.width
        line = self._line - lines_taken + 1
        return Record(line, lines_taken, fields, "" if fits else f"not the {self.width} fields of the header")

    def _quoted(self, first: str) -> Record:
        """The record that begins with a line with a quotation mark."""
        line, more = self._line, []

        def feed() -> Iterator[str]:
            yield first[:-2].replace("\r", RETURN) + first[-2:]
            size = len(first)
            while size <= lines.MAX_BYTES and (follows := self._next()):
                more.append(follows)
                size += len(follows)
                yield follows[:-2].replace("\r", RETURN) + follows[-2:]

        try:
            # `strict` reports a broken quote, which would otherwise swallow the rows up to the next quote.
            fields = next(csv.reader(feed(), delimiter=self.delimiter, strict=True))
            record = self._judged([value.replace(RETURN, "\r") for value in fields], 1 + len(more))
        except csv.Error as error:
            end = "unexpected end" in str(error) or "field larger" in str(error)
            why = "a quotation mark that is never closed" if end else "a quotation mark inside a field"
            record = Record(line, 1, first.split(self.delimiter), f"{why} ({error})")
        literal, widths = self._split(first), [len(self._split(each)) for each in (first, *more)]
        # The mark of one line and that of another one look like a quoted field that goes over all lines between. It is
        # one if the lines are no rows by themselves; a line or two may look like rows by chance.
        swallowed = self.width > 1 and set(widths) == {self.width} and self._tells(len(more))
        # Doubled marks are written by those who quote.
        swallowed &= not any(2 * QUOTE in each for each in (first, *more))
        if self._may_be_literal and len(literal) == self.width and (record.wrong or swallowed):
            self._put_back(more)
            return Record(line, 1, literal)
        if swallowed and not record.wrong:
            self._put_back(more)
            return Record(line, 1, literal, f"a quotation mark, closed {len(more)} rows below")
        # Lines that are rows by themselves were swallowed; a broken row costs only its own line.
        if record.wrong and more and (record.lines == 1 or self.width in widths[1:]):
            self._put_back(more)
            return Record(line, 1, record.fields, record.wrong)
        return record

    def _tells(self, lines_more: int) -> bool:
        """Whether so many lines that look like rows are rows: prose has commas, but hardly tabs."""
        return lines_more >= (1 if self.delimiter == "\t" else 3 if self.width > 2 else 6)

    @property
    def _may_be_literal(self) -> bool:
        # Tab-separated files are mostly written without quoting, since texts have no tabs.
        return self.quoting == "auto" and (self.delimiter == "\t" or self.width == 1)

    def _too_long(self, line: str) -> Record:
        # The rest is read and thrown away in bounded pieces, up to the line's end.
        while (rest := self.stream.readline(lines.MAX_BYTES)) and not rest.endswith("\n"):
            pass
        return Record(self._line, 1, [line[:500]], f"longer than {lines.MAX_BYTES // 2**20} MiB")
