"""The codec of several vectors per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stella_assets.storage.codecs.base import Floats, check_count, one_chunk
from stella_assets.storage.codecs.vectors import UNIT_NORM, check_entries, vectors_to_arrow, vectors_to_numpy
from stella_assets.storage.errors import VectorError


@dataclass(frozen=True)
class RaggedVectors:
    """Several vectors per row, e.g. one per token, kept as float16; in memory a list of `[vectors of the row, dim]`.

    Attributes:
        dim: Dimensions of each vector.
        unit_norm: Whether only vectors of unit norm may enter.
    """

    dim: int
    unit_norm: bool = True

    @property
    def arrow_type(self) -> pa.DataType:
        """`list<fixed_size_list<float16>[dim]>`."""
        return pa.list_(pa.list_(pa.float16(), self.dim))

    @property
    def metadata(self) -> Mapping[str, str]:
        """`UNIT_NORM`, where vectors may have any norm."""
        return {} if self.unit_norm else {UNIT_NORM: "false"}

    def to_arrow(self, values: Sequence[Floats]) -> pa.Array:
        """A list of `[vectors of the row, dim]` as an Arrow array; entries are rounded to float16."""
        # int32 is Arrow's offset type of `list`; a unit of 32,768 rows stays far below its limit.
        ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
        # The empty block gives an empty column its dimensions.
        flat = np.concatenate([np.empty((0, self.dim), np.float16), *values])
        return pa.ListArray.from_arrays(pa.array(ends), vectors_to_arrow(flat))

    def from_arrow(self, column: pa.Array | pa.ChunkedArray) -> list[npt.NDArray[np.float16]]:
        """A column as a list of `[vectors of the row, dim]` float16; the arrays are views of one block."""
        array = one_chunk(column)
        # A slice keeps the offsets of its parent; `flatten` begins at the slice.
        starts = array.offsets.to_numpy() - array.offsets[0].as_py()
        flat = vectors_to_numpy(array.flatten())
        return [flat[start:end] for start, end in pairwise(starts)]

    def check(self, values: Sequence[Floats], rows: int, origin: str) -> None:
        """Refuse rows without vectors, and vectors that are misshapen, not finite or, if required, not of unit norm."""
        check_count(values, rows, origin)
        for row, block in enumerate(values):
            if block.ndim != 2 or block.shape[1] != self.dim or not len(block):
                raise VectorError(
                    f"{origin}: row {row} of its unit has vectors of shape {block.shape}, not (1 or more, {self.dim}); "
                    "nothing was stored."
                )
        if rows:
            owners = np.repeat(np.arange(rows), [len(block) for block in values])
            check_entries(np.concatenate(list(values)), owners, "token vectors", self.unit_norm, origin)
