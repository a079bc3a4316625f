"""The rows of Arrow's batches, one by one: a value that cannot be read costs its own row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stella_assets.corpus.sources.base import Malformed, RawText, RowSource, unreadable
from stella_assets.corpus.sources.columns import Columns

if TYPE_CHECKING:
    import pyarrow as pa


UNREADABLE = (OSError, ValueError, EOFError, NotImplementedError)
"""What Arrow and Lance raise about the content of a file."""


def texts_of_piece(
    batches: Iterable[pa.RecordBatch],
    rows: int,
    columns: Columns,
    source: RowSource,
    section: str,
    place: str,
    start: int,
) -> Iterator[RawText | Malformed]:
    """The texts of a piece of a table. Where it is damaged, each of its rows is malformed; the other pieces are read.

    Args:
        batches: Of the piece.
        rows: How many rows it has.
        columns: As for `texts_in`, like the rest.
        source: As for `texts_in`.
        section: As for `texts_in`.
        place: As for `texts_in`.
        start: As for `texts_in`.
    """
    end = start + rows
    try:
        for batch in batches:
            yield from texts_in(batch, columns, source, section, place, start)
            start += batch.num_rows
    except UNREADABLE as error:
        for number in range(start + 1, end + 1):
            yield Malformed(f"{place}:{number}", unreadable(error))


def texts_in(
    batch: pa.RecordBatch, columns: Columns, source: RowSource, section: str, place: str, start: int
) -> Iterator[RawText | Malformed]:
    """The texts of a batch.

    Args:
        batch: The rows.
        columns: Which column holds what.
        source: Gives the role and the licence of rows that do not state their own.
        section: The section of rows that do not state their own.
        place: Of the batch, for people.
        start: How many rows came before.
    """
    for number, row in enumerate(_rows(batch), start + 1):
        origin = f"{place}:{number}"
        if isinstance(row, Exception):
            yield Malformed(origin, _why(row))
        else:
            yield from columns.texts_of(row, source, section, origin)


def _rows(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any] | Exception]:
    # Arrow does not look at the bytes of strings when it reads a file, so wrong ones are found only here.
    try:
        rows = batch.to_pylist(maps_as_pydicts="lossy")
    except (ValueError, OverflowError):
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist(maps_as_pydicts="lossy")[0]
            except (ValueError, OverflowError) as error:
                yield error
    else:
        yield from rows


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not utf-8: byte {error.start} is 0x{error.object[error.start]:02x}"
    return unreadable(error)
