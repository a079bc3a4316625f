"""The codec of one vector per row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stella_assets.storage.codecs.base import Floats
from stella_assets.storage.codecs.vectors import UNIT_NORM, check_entries, vectors_to_arrow, vectors_to_numpy
from stella_assets.storage.errors import VectorError


@dataclass(frozen=True)
class FixedVectors:
    """One vector per row, kept as float16; in memory `[rows, dim]`.

    Attributes:
        dim: Dimensions.
        unit_norm: Whether only vectors of unit norm may enter.

    Example:
        >>> codec = FixedVectors(dim=384)
        >>> codec.from_arrow(codec.to_arrow(vectors)).dtype
        dtype('float16')
    """

    dim: int
    unit_norm: bool = True

    @property
    def arrow_type(self) -> pa.DataType:
        """`fixed_size_list<float16>[dim]`."""
        return pa.list_(pa.float16(), self.dim)

    @property
    def metadata(self) -> Mapping[str, str]:
        """`UNIT_NORM`, where vectors may have any norm."""
        return {} if self.unit_norm else {UNIT_NORM: "false"}

    def to_arrow(self, values: Floats) -> pa.Array:
        """`[rows, dim]` of any float type as an Arrow array; entries are rounded to float16."""
        return vectors_to_arrow(values)

    def from_arrow(self, column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float16]:
        """A column as `[rows, dim]` float16, without a copy where it lies in one chunk."""
        return vectors_to_numpy(column)

    def check(self, values: Floats, rows: int, origin: str) -> None:
        """Refuse vectors that are misshapen, not finite in float16, or, if required, not of unit norm."""
        if values.shape != (rows, self.dim):
            raise VectorError(
                f"{origin}: got vectors of shape {values.shape}, not ({rows}, {self.dim}), for {rows} rows; "
                "nothing was stored."
            )
        check_entries(values, np.arange(rows), "vectors", self.unit_norm, origin)
