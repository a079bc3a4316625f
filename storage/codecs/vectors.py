"""Vectors in Arrow, and which vectors may be stored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stella_assets.storage.codecs.base import Floats, one_chunk
from stella_assets.storage.errors import VectorError

NORM_TOLERANCE = 1e-3
"""Largest deviation of a norm from 1 of a vector that counts as a unit vector, before it is rounded to float16."""
UNIT_NORM = "stella.unit_norm"
"""Key of a table's metadata; `false` says that its vectors may have any norm."""
BLOCK_ENTRIES = 2**23
"""Entries of the vectors that are in memory at a time: 32 MiB in float32."""


def block_rows(dim: int, entries: int = BLOCK_ENTRIES) -> int:
    """Rows to read at a time, of vectors of `dim` dimensions.

    Args:
        dim: Dimensions.
        entries: That may be in memory.

    Returns:
        At least 64, as each read has a fixed cost; at most 8,192, as the other columns are in memory, too.
    """
    return max(64, min(8192, entries // dim))


def vectors_to_arrow(vectors: Floats) -> pa.FixedSizeListArray:
    """`[n, dim]` of any float type as an Arrow fixed-size list of float16."""
    # One flat block for all vectors: `pa.array` of rows would build a Python object per entry.
    flat = np.ascontiguousarray(vectors, dtype=np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), vectors.shape[1])


def vectors_to_numpy(column: pa.ChunkedArray | pa.FixedSizeListArray) -> npt.NDArray[np.float16]:
    """An Arrow fixed-size list of float16 as `[n, dim]`, without a copy where it lies in one chunk."""
    array = one_chunk(column)
    flat: npt.NDArray[np.float16] = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), array.type.list_size)


def check_entries(values: Floats, owners: npt.NDArray[np.int64], noun: str, unit_norm: bool, origin: str) -> None:
    """Refuse vectors that are not finite or not of unit norm.

    Args:
        values: `[n, dim]`.
        owners: `[n]`, the row that each vector belongs to, for the message.
        noun: What they are, in the plural.
        unit_norm: Whether their norms must be 1.
        origin: What the values are of, for the message.

    Raises:
        VectorError: A vector is not valid.
    """
    finite, norms = np.empty(len(values), dtype=bool), np.empty(len(values), dtype=np.float32)
    # In blocks: copies of a whole unit would take several times its memory.
    rows = block_rows(values.shape[1])
    for start in range(0, len(values), rows):
        here = slice(start, start + rows)
        # Tested after rounding: entries beyond 65,504 are finite in float32 and infinite in float16.
        with np.errstate(over="ignore"):
            finite[here] = np.isfinite(values[here].astype(np.float16)).all(axis=1)
        # Before rounding and in float32: a norm summed in float16 would be off by more than the tolerance.
        norms[here] = np.linalg.norm(values[here].astype(np.float32, copy=False), axis=1)
    bad = np.flatnonzero(~finite)
    if bad.size:
        raise VectorError(
            f"{origin}: {bad.size} {noun} hold NaN or infinity, or entries that float16 cannot hold; the first is row "
            f"{owners[bad[0]]} of its unit. Nothing was stored."
        )
    bad = np.flatnonzero(np.abs(norms - 1) > NORM_TOLERANCE) if unit_norm else bad
    if bad.size:
        raise VectorError(
            f"{origin}: {bad.size} {noun} are not of unit norm; the first is row {owners[bad[0]]} of its unit with "
            f"norm {norms[bad[0]]:.6f}. Nothing was stored."
        )
