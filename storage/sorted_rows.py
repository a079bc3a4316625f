"""Rows in the order of their ids, however many: spread over files by how the id begins, then sorted file by file."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.storage.polars import pl
from stella_assets.storage.tables import ROW_GROUP

PARTS = 16
"""Files that rows are spread over; one of them is in memory at a time. Ids are hashes, so the files are about equal."""


class SortedRows:
    """Takes frames with an `id` of hexadecimal digits in any order, and gives all rows back in order."""

    def __init__(self, folder: Path) -> None:
        """Spread rows over files in this folder; what is there goes."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._files: dict[int, pa.ipc.RecordBatchFileWriter] = {}

    def add(self, rows: pl.DataFrame) -> None:
        """Take rows; every frame has the same columns. A row without an id comes first."""
        # Monotonic in the id, so sorting file by file sorts everything. `strict=False` turns a null id into part 0.
        part = pl.col("id").str.slice(0, 2).str.to_integer(base=16, strict=False).fill_null(0) * PARTS // 256
        for (number,), some in rows.group_by(part.alias("part")):
            table = some.to_arrow()
            if number not in self._files:
                # Arrow IPC with lz4, not Parquet: the file is written and read once, in frames of any length.
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                self._files[number] = pa.ipc.new_file(self._path(number), table.schema, options=options)
            self._files[number].write_table(table)

    def parts(self, by: list[str]) -> Iterator[pl.DataFrame]:
        """All rows, sorted by these columns, the first of which is `id`; nothing can be added any more."""
        for file in self._files.values():
            file.close()
        for number in sorted(self._files):
            with pa.ipc.open_file(self._path(number)) as file:
                yield pl.DataFrame(file.read_all()).sort(by)
            # At once, so that the disk holds the rows about once and not twice.
            Path(self._path(number)).unlink()
        self._files.clear()

    def _path(self, number: int) -> str:
        return str(self._folder / f"{number}.arrow")


def write_in_groups(path: Path, schema: pa.Schema, frames: Iterable[pl.DataFrame]) -> None:
    """Write frames as one Parquet file whose bytes do not depend on where frames end.

    Args:
        path: The file.
        schema: Its columns; other columns of the frames are left out.
        frames: Rows in order, in frames of any length.
    """
    pending = pl.DataFrame(schema.empty_table())
    # Each `write_table` makes a row group of its own, so rows are collected until a group is full.
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(rows: pl.DataFrame) -> None:
            writer.write_table(rows.rechunk().to_arrow().cast(schema))  # chunks would decide where pages end

        for frame in frames:
            pending = pl.concat([pending, frame.select(schema.names)])
            while len(pending) >= ROW_GROUP:
                write(pending.head(ROW_GROUP))
                pending = pending.slice(ROW_GROUP)
        if len(pending):
            write(pending)
