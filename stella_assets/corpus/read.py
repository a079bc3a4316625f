"""Reading the corpus in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.data import Example
from stella_assets.corpus.tables import FUNNEL, TEXTS
from stella_assets.storage.polars import pl

CORPUS_FILE = TEXTS.file
FUNNEL_FILE = FUNNEL.file
LICENCES_FILE = "licences.parquet"
EXAMPLE_COLUMNS = ("id", "text", "role", "parent", "source", "section", "licence", "origin")


class CorpusTexts:
    """The texts of a corpus, in the order of their ids. One row group is in memory at a time.

    Args:
        folder: Of the artefact.

    Example:
        >>> texts = CorpusTexts(artefact.folder)
        >>> texts.take(np.array([0, 1]), ["id", "text"]).to_pylist()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = pq.ParquetFile(folder / CORPUS_FILE)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        # Position of the first text of each row group, then the number of texts.
        self._starts = np.cumsum([0, *sizes])
        self._group: tuple[int, tuple[str, ...], pa.Table] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all texts, in memory as a whole."""
        return pq.read_table(self.folder / CORPUS_FILE, columns=list(columns))

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all texts, in batches."""
        return self._file.iter_batches(columns=list(columns))

    def take(self, positions: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of the texts at ascending positions.

        Args:
            positions: Ascending, from 0. In another order the rows would come grouped by row group.
            columns: Names of columns.

        Returns:
            One row per position.
        """
        groups = np.searchsorted(self._starts, positions, side="right") - 1
        parts = [
            self._read_group(int(group), tuple(columns)).take(positions[groups == group] - self._starts[group])
            for group in np.unique(groups)
        ]
        return pa.concat_tables(parts) if parts else self._file.schema_arrow.empty_table().select(list(columns))

    def examples(self, positions: np.ndarray) -> list[Example]:
        """Some texts as examples. The group of a text is the id of the text that it was made of, or its own id.

        Args:
            positions: Ascending, from 0.
        """
        return [_example(row) for row in self.take(positions, EXAMPLE_COLUMNS).to_pylist()]

    def funnel(self) -> list[dict[str, Any]]:
        """`source`, `rule` and `texts`: how many texts were read, dropped by each rule, and kept."""
        return pq.read_table(self.folder / FUNNEL_FILE).to_pylist()

    def licences(self) -> pl.DataFrame:
        """`licence`, `source` and `texts`, as the sources state the licences."""
        return pl.read_parquet(self.folder / LICENCES_FILE)

    def licence_counts(self) -> list[tuple[str, int]]:
        """Licences and how many texts have each, the most frequent first."""
        counts = self.licences().group_by("licence").agg(pl.sum("texts"))
        return list(counts.sort(["texts", "licence"], descending=[True, False]).iter_rows())

    def _read_group(self, group: int, columns: tuple[str, ...]) -> pa.Table:
        # Batches ascend, so the next one mostly begins in the group where the last one ended.
        if self._group is None or self._group[:2] != (group, columns):
            self._group = (group, columns, self._file.read_row_group(group, columns=list(columns)))
        return self._group[2]


def _example(row: Mapping[str, Any]) -> Example:
    return Example(
        id=row["id"],
        text=row["text"],
        role=row["role"],
        group=row["parent"] or row["id"],
        source=row["source"],
        section=row["section"],
        licence=row["licence"],
        origin=row["origin"],
    )
