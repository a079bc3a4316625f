"""Reading the corpus in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.step import Artefact
from stella_assets.corpus.build import CORPUS_FILE


class CorpusTexts:
    """The texts of a corpus, in the order of their ids; a row group is in memory at a time."""

    def __init__(self, corpus: Artefact) -> None:
        self._file = pq.ParquetFile(corpus.folder / CORPUS_FILE)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._group: tuple[int, tuple[str, ...], pa.Table] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all texts, in batches."""
        return self._file.iter_batches(columns=list(columns))

    def take(self, positions: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of the texts at ascending positions."""
        groups = np.searchsorted(self._starts, positions, side="right") - 1
        parts = [
            self._read_group(int(group), tuple(columns)).take(positions[groups == group] - self._starts[group])
            for group in np.unique(groups)
        ]
        return pa.concat_tables(parts) if parts else self._file.schema_arrow.empty_table().select(list(columns))

    def _read_group(self, group: int, columns: tuple[str, ...]) -> pa.Table:
        if self._group is None or self._group[:2] != (group, columns):
            self._group = (group, columns, self._file.read_row_group(group, columns=list(columns)))
        return self._group[2]
