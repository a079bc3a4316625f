"""Lance datasets for DuckDB: columns of float16 vectors are read as float32."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads


class Float32Dataset(pads.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """A Lance dataset whose float16 columns are read as float32, in the form of Arrow that DuckDB scans."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        # Cast inside Lance's scan, batch by batch: DuckDB refuses Arrow's float16, and a column may not fit in memory.
        self._casts = {
            field.name: f"arrow_cast({field.name}, 'FixedSizeList({field.type.list_size}, Float32)')"
            for field in dataset.schema
            if pa.types.is_fixed_size_list(field.type)
        }

    @property
    def schema(self) -> pa.Schema:
        """The schema as DuckDB sees it."""
        return pa.schema(
            [
                pa.field(
                    field.name,
                    pa.list_(pa.float32(), field.type.list_size) if field.name in self._casts else field.type,
                )
                for field in self._dataset.schema
            ]
        )

    # DuckDB calls exactly this method of pyarrow.dataset.Dataset; other arguments (batch size, memory pool) are advice.
    def scanner(self, columns: list[str] | None = None, filter: Any = None, **_: Any) -> Any:  # noqa: A002 (Arrow's name)
        """A scanner of the named columns."""
        chosen = self._dataset.schema.names if columns is None else columns
        try:
            return self._dataset.scanner(columns={name: self._casts.get(name, name) for name in chosen}, filter=filter)
        except pa.ArrowInvalid:  # Lance cannot filter by a float16 column; Arrow filters what was cast
            everything = self._dataset.scanner(
                columns={name: self._casts.get(name, name) for name in self.schema.names}
            )
            return pads.InMemoryDataset(everything.to_reader()).scanner(columns=chosen, filter=filter)
