"""The codec of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from stella_assets.storage.codecs.base import check_count
from stella_assets.storage.errors import VectorError


@dataclass(frozen=True)
class Binary:
    """Bytes, e.g. of an encoded image; in memory a list of `bytes`."""

    @property
    def arrow_type(self) -> pa.DataType:
        """`large_binary`: a unit of images can have more than 2 GiB."""
        return pa.large_binary()

    @property
    def metadata(self) -> Mapping[str, str]:
        """Nothing."""
        return {}

    def to_arrow(self, values: Sequence[bytes]) -> pa.Array:
        """A list of bytes as an Arrow array."""
        return pa.array(list(values), pa.large_binary())

    def from_arrow(self, column: pa.Array | pa.ChunkedArray) -> list[bytes]:
        """A column as a list of bytes."""
        values: list[bytes] = column.to_pylist()
        return values

    def check(self, values: Sequence[bytes], rows: int, origin: str) -> None:
        """Refuse anything but one `bytes` per row."""
        check_count(values, rows, origin)
        for row, value in enumerate(values):
            if not isinstance(value, bytes):
                raise VectorError(
                    f"{origin}: row {row} of its unit is of type {type(value).__name__}, not bytes; nothing was stored."
                )
