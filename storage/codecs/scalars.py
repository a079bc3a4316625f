"""The codec of one number per row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stella_assets.storage.codecs.base import Floats, one_chunk
from stella_assets.storage.errors import VectorError


@dataclass(frozen=True)
class Scalars:
    """One number per row, kept as float32; in memory `[rows]`."""

    @property
    def arrow_type(self) -> pa.DataType:
        """`float`."""
        return pa.float32()

    @property
    def metadata(self) -> Mapping[str, str]:
        """Nothing."""
        return {}

    def to_arrow(self, values: Floats) -> pa.Array:
        """`[rows]` of any float type as an Arrow array; numbers are rounded to float32."""
        return pa.array(np.asarray(values, dtype=np.float32), pa.float32())

    def from_arrow(self, column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float32]:
        """A column as `[rows]` float32."""
        return np.asarray(one_chunk(column).to_numpy(zero_copy_only=False), dtype=np.float32)

    def check(self, values: Floats, rows: int, origin: str) -> None:
        """Refuse anything but one finite number per row."""
        if values.shape != (rows,):
            raise VectorError(f"{origin}: got numbers of shape {values.shape}, not ({rows},); nothing was stored.")
        # Tested after rounding: a float64 can be finite and beyond the range of float32.
        with np.errstate(over="ignore"):
            bad = np.flatnonzero(~np.isfinite(values.astype(np.float32)))
        if bad.size:
            raise VectorError(
                f"{origin}: {bad.size} numbers are NaN or infinity, the first is row {bad[0]} of its unit; "
                "nothing was stored."
            )
