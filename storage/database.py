"""LanceDB: the connection, and vectors between Arrow and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def connect(uri: str) -> Any:
    """Open the database that lies at `uri`, made on the first write."""
    import lancedb

    return lancedb.connect(uri)


def has_table(database: Any, name: str) -> bool:
    """Whether the table exists."""
    token = None
    while True:
        page = database.list_tables(page_token=token)
        if name in page.tables:
            return True
        token = page.page_token
        if not token:
            return False


def to_arrow(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """`[n, dim]` of any float type as an Arrow fixed-size list of float16."""
    flat = np.ascontiguousarray(vectors, dtype=np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), vectors.shape[1])


def to_numpy(column: pa.ChunkedArray | pa.FixedSizeListArray) -> np.ndarray:
    """An Arrow fixed-size list of float16 as `[n, dim]`, without a copy where it lies in one chunk."""
    array = column
    if isinstance(column, pa.ChunkedArray):
        array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)
