"""Keys of rows: 128 bits of a hash, as 32 hexadecimal digits in tables and as 16 bytes in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stella_assets.storage.errors import StoreError

ID_CHARS = 32
"""Hexadecimal digits of an id."""

Keys = npt.NDArray[np.bytes_]
"""Keys `[n]` of 16 bytes each, dtype `S16`."""
Positions = npt.NDArray[np.int64]
"""Positions `[n]` in a list of keys."""


def to_keys(ids: pa.Array | pa.ChunkedArray | list[str]) -> Keys:
    """Ids as `[n]` of 16 bytes: half the memory of their text, and quick to sort and search.

    Raises:
        StoreError: An id is null or is not 32 hexadecimal digits.
    """
    array = pa.array(ids, pa.string()) if isinstance(ids, list) else ids
    if isinstance(array, pa.ChunkedArray):
        return np.concatenate([to_keys(chunk) for chunk in array.chunks]) if array.num_chunks else to_keys([])
    if not len(array):
        return np.empty(0, dtype="S16")
    if array.null_count:
        raise StoreError(f"{array.null_count} ids are null; an id is {ID_CHARS} hexadecimal digits.")
    # Straight from Arrow's buffers: one Python string per id would take 81 bytes for a key of 16.
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)[array.offset : array.offset + len(array) + 1]
    if (np.diff(offsets) != ID_CHARS).any():
        odd = next(value for value in array.to_pylist() if len(value) != ID_CHARS)
        raise StoreError(f"id {odd!r}: an id is {ID_CHARS} hexadecimal digits of a hash.")
    # All ids have the same length and lie without gaps, so one `fromhex` converts the block.
    text: str = array.buffers()[2][int(offsets[0]) : int(offsets[-1])].to_pybytes().decode()
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    # `fromhex` skips blanks, which would move the digits of all ids behind them.
    if 2 * len(raw) != len(text):
        raise StoreError(f"an id among {array[0]}, ... is not hexadecimal; ids are hashes.")
    return np.frombuffer(raw, dtype="S16")


def to_ids(keys: Keys) -> Any:
    """Keys as the hexadecimal ids that they were made of, an Arrow array of strings."""
    # The raw bytes: an element of dtype S16 read as a Python value loses its trailing zero bytes.
    text = np.ascontiguousarray(keys).tobytes().hex()
    offsets = np.arange(0, len(text) + 1, ID_CHARS, dtype=np.int32)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(text.encode()))


def find_sorted(known: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """Where values are among known ones.

    Args:
        known: Ascending.
        wanted: Of the same type, in any order.

    Returns:
        A position in `known` for each, which means nothing where it is not there; and whether it is there.
    """
    if not len(known):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    # A value above all others has no place to compare with; it is compared with the last and differs.
    at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return at, known[at] == wanted
