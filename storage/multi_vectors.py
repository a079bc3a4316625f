"""A table with several vectors per row, searched by MaxSim: exactly, or by an index over the single vectors.

MaxSim of a query with a row is the sum over the query's vectors of the largest cosine with a vector of the row. LanceDB
computes it for lists of vectors in float16; its distance is the number of the query's vectors less MaxSim.

Shapes: Q vectors of a query, D dimensions.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stella_assets.storage.codecs import Floats, RaggedVectors
from stella_assets.storage.database import connect
from stella_assets.storage.lance_errors import translate_lance_errors

TABLE, ID, VECTORS = "rows", "id", "vectors"
# A codebook of 256 entries cannot be learned from fewer.
LEAST_INDEXED = 256
PARTITION = 4096
"""Vectors per partition of the index, about; fewer would be looked through faster, and miss more."""
BYTES_PER_DIMENSIONS = 8
"""Dimensions that one byte of the index stands for."""
# Twice as many of each would take twice the time, and find about a hundredth more.
ITERATIONS, SAMPLED = 10, 64
BATCH = 256
"""Rows whose vectors are in memory at once."""
PROBES, REFINED = 20, 10
"""Partitions that a search looks into, and how many times the asked rows are compared again by their own vectors."""

Found = list[tuple[str, float]]
"""Names of rows with their MaxSim, the largest first."""


class MultiVectorTable:
    """Rows with several vectors each, in a folder.

    Args:
        folder: Of the table, which `write` made.

    Example:
        >>> table = MultiVectorTable.write(folder, 64, [(["a"], [vectors_of_a])])
        >>> table.nearest(query_QD, 10)
    """

    def __init__(self, folder: Path) -> None:
        self._place = str(folder)
        with translate_lance_errors(self._place):
            self._table: Any = connect(self._place).open_table(TABLE)

    @classmethod
    def write(
        cls, folder: Path, dim: int, batches: Iterable[tuple[Sequence[str], Sequence[Floats]]]
    ) -> MultiVectorTable:
        """Write a new table, batch by batch.

        Args:
            folder: That does not exist.
            dim: Dimensions of every vector.
            batches: Names of rows, and the unit vectors of each: at least one.

        Raises:
            VectorError: A vector has other dimensions or is not of unit norm.
        """
        codec = RaggedVectors(dim)
        schema = pa.schema({ID: pa.string(), VECTORS: codec.arrow_type})

        def encoded() -> Iterator[pa.RecordBatch]:
            for ids, vectors in batches:
                # Cosines of LanceDB would hide another norm, and other programs take dot products.
                codec.check(vectors, len(ids), str(folder))
                yield pa.record_batch([pa.array(ids, pa.string()), codec.to_arrow(vectors)], schema=schema)

        rows = encoded()
        # LanceDB looks into the first batch, also where there is none.
        first = next(rows, None)
        data = pa.RecordBatchReader.from_batches(schema, chain([first], rows)) if first else None
        with translate_lance_errors(str(folder)):
            connect(str(folder)).create_table(TABLE, data, schema=schema)
        return cls(folder)

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def build_index(self, vectors: int, dim: int) -> int:
        """Build an index of product-quantised vectors in partitions (IVF_PQ).

        Args:
            vectors: Of all rows together.
            dim: Of each.

        Returns:
            Partitions; 0 where there are too few vectors for an index, and all searches are exact.

        References:
            Jégou, Douze & Schmid, "Product Quantization for Nearest Neighbor Search", TPAMI 33(1), 2011.
        """
        if vectors < LEAST_INDEXED:
            return 0
        from lancedb.index import IvfPq

        partitions = max(1, vectors // PARTITION)
        parts = max(part for part in range(1, max(1, dim // BYTES_PER_DIMENSIONS) + 1) if dim % part == 0)
        config = IvfPq(
            distance_type="cosine",
            num_partitions=partitions,
            num_sub_vectors=parts,
            max_iterations=ITERATIONS,
            sample_rate=SAMPLED,
        )
        with translate_lance_errors(self._place):
            self._table.create_index(VECTORS, config=config)
        return partitions

    def nearest(self, query_QD: Floats, top: int, *, exact: bool = True) -> Found:
        """The rows with the largest MaxSim.

        Args:
            query_QD: Unit vectors.
            top: How many rows.
            exact: Whether every row is compared; else the index is asked, if there is one.
        """
        asked = self._table.search(query_QD, vector_column_name=VECTORS).distance_type("cosine").limit(top)
        asked = asked.bypass_vector_index() if exact else asked.nprobes(PROBES).refine_factor(REFINED)
        with translate_lance_errors(self._place):
            found = asked.select([ID, "_distance"]).to_arrow()
        scores = (len(query_QD) - distance for distance in found["_distance"].to_pylist())
        return list(zip(found[ID].to_pylist(), scores, strict=True))

    def nearest_of_many(self, queries: Sequence[Floats], top: int) -> list[Found]:
        """What exact search finds for each of many queries, in one pass over the table, as matrix products.

        LanceDB passes over the table for each query.

        Args:
            queries: Unit vectors of each.
            top: How many rows.
        """
        best: list[Found] = [[] for _ in queries]
        codec = RaggedVectors(self._table.schema.field(VECTORS).type.value_type.list_size)
        with translate_lance_errors(self._place):
            for batch in self._table.to_lance().to_batches(columns=[ID, VECTORS], batch_size=BATCH):
                names, rows = batch.column(ID).to_pylist(), codec.from_arrow(batch.column(VECTORS))
                vectors = np.concatenate(rows).astype(np.float32)
                starts = np.cumsum([0, *map(len, rows[:-1])])
                for number, query_QD in enumerate(queries):
                    scores = np.maximum.reduceat(query_QD @ vectors.T, starts, axis=1).sum(axis=0)
                    found = [*best[number], *zip(names, scores.tolist(), strict=True)]
                    best[number] = heapq.nlargest(top, found, key=lambda each: each[1])
        return best
