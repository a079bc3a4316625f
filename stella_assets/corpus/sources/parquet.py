"""Source kind `parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from stella_assets.corpus.sources.base import SOURCES, Malformed, RawText, Rows
from stella_assets.corpus.sources.batches import texts_in
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
    unreadable: ClassVar[tuple[type[Exception], ...]] = (*FileSource.unreadable, NotImplementedError)

    kind: Literal["parquet"]

    def rows(self, path: Path, section: str) -> Rows:
        """The rows of one file, batch by batch."""
        import pyarrow.parquet as pq

        # Page by page: by default Arrow has the whole row group in memory, which can be gigabytes.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            columns = [name for name in self.columns.names() if name in file.schema_arrow.names]
            start = 0
            # Group by group: a damaged group costs its own rows.
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=columns):
                        yield from texts_in(batch, self.columns, self, section, path.name, start)
                        start += batch.num_rows
                except self.unreadable as error:
                    why = f"cannot be read: {' '.join(str(error).split())[:300]}"
                    for number in range(start + 1, end + 1):
                        yield Malformed(f"{path.name}:{number}", why)
                start = end

    def first_rows(self, path: Path) -> list[RawText | Malformed]:
        """The first rows of a file whose footer has the columns.

        Raises:
            SourceError: A column is missing.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = pq.read_schema(path).names
        except (pa.ArrowInvalid, OSError) as error:
            return [Malformed(path.name, f"not a Parquet file ({error})", whole_file=True)]
        self.columns.require(names, path, self.name)
        return super().first_rows(path)
