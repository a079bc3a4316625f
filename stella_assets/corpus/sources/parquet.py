"""Source kind `parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources.base import SOURCES, Rows
from stella_assets.corpus.sources.columns import Columns
from stella_assets.corpus.sources.files import FileSource

# Row groups can have millions of rows; only a batch is turned into Python objects at a time.
BATCH_ROWS = 8192


@SOURCES.register
class Parquet(FileSource):
    """Parquet files.

    Example:
        Of `corpus.sources` in a recipe::

            {name: wiki, kind: parquet, path: wiki/, licence: CC-BY-SA-4.0, columns: {text: [title, text]}}
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    kind: Literal["parquet"]
    columns: Columns = Field(default=Columns(), description="which column holds what")

    def rows(self, path: Path, section: str) -> Rows:
        """The rows of one file, batch by batch."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            columns = [name for name in self.columns.names() if name in file.schema_arrow.names]
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield self.columns.text_of(row, self, section, f"{path.name}:{number}")

    def first_error(self, path: Path) -> SourceError | None:
        """What is wrong with a file, by its footer: rows need not be read.

        Raises:
            SourceError: A column is missing.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = pq.read_schema(path).names
        except (pa.ArrowInvalid, OSError) as error:
            return SourceError(f"{path}: not a Parquet file ({error}).", f"Correct `path` of source {self.name!r}.")
        self.columns.require(names, path, self.name)
        return None
