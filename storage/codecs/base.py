"""What every codec is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stella_assets.storage.errors import VectorError

Floats = npt.NDArray[np.floating[Any]]
V = TypeVar("V")


class Codec(Protocol[V]):
    """How values of a column are kept in Arrow; `V` is the type of a column's values in memory.

    `from_arrow(to_arrow(values))` gives the values back, rounded to the stored number format.

    Example:
        >>> codec = FixedVectors(dim=384)
        >>> codec.check(vectors, rows=len(vectors), origin="minilm")
        >>> column = codec.to_arrow(vectors)
    """

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's type."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What a table's metadata must say of its values."""

    def to_arrow(self, values: V) -> pa.Array:
        """The values as an Arrow array of `arrow_type`."""

    def from_arrow(self, column: pa.Array | pa.ChunkedArray) -> V:
        """The values of a column that `to_arrow` made."""

    def check(self, values: V, rows: int, origin: str) -> None:
        """Refuse values that must not be stored.

        Args:
            values: One per row.
            rows: Rows expected.
            origin: What the values are of, for the message.

        Raises:
            VectorError: There are more or fewer values than rows, or a value is not valid.
        """


def describe_type(kind: pa.DataType) -> str:
    """A column's type in words, for messages and for comparing a table with what is expected."""
    if pa.types.is_fixed_size_list(kind):
        return f"vectors of {kind.list_size} dimensions"
    if pa.types.is_list(kind):
        return f"lists of {describe_type(kind.value_type)}"
    return f"values of type {kind}"


def one_chunk(column: pa.Array | pa.ChunkedArray) -> Any:
    """A column as one Arrow array."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    # `combine_chunks` copies even a single chunk, which may be gigabytes.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def check_count(values: Sequence[object], rows: int, origin: str) -> None:
    """Refuse more or fewer values than rows."""
    if len(values) != rows:
        raise VectorError(f"{origin}: got {len(values)} values for {rows} rows; nothing was stored.")
