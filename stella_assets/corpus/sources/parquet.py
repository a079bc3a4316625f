"""Source kind `parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from stella_assets.corpus.sources.base import SOURCES, Malformed, Rows
from stella_assets.corpus.sources.batches import UNREADABLE, texts_of_piece
from stella_assets.corpus.sources.columns import ColumnSource
from stella_assets.corpus.sources.files import FileSource

# Row groups can have millions of rows; only a batch is turned into Python objects at a time.
BATCH_ROWS = 8192
BUFFER = 2**20


@SOURCES.register
class Parquet(FileSource, ColumnSource):
    """Parquet files.

    Example:
        Of `corpus.sources` in a recipe::

            {name: wiki, kind: parquet, path: wiki/, licence: CC-BY-SA-4.0, columns: {text: [title, text]}}
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    unreadable: ClassVar[tuple[type[Exception], ...]] = UNREADABLE

    kind: Literal["parquet"]

    def rows(self, path: Path, section: str) -> Rows:
        """The rows of one file, batch by batch."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # Page by page: by default Arrow has the whole row group in memory, which can be gigabytes.
            opened = pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"not a Parquet file ({error})") from None
        with opened as file:
            names = file.schema_arrow.names
            if why := self.columns.missing_text(names):
                for number in range(1, file.metadata.num_rows + 1):
                    yield Malformed(f"{path.name}:{number}", why)
                return
            columns = [name for name in self.columns.names(names) if name in names]
            start = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                batches = file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=columns)
                yield from texts_of_piece(batches, rows, self.columns, self, section, path.name, start)
                start += rows
