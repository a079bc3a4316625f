"""Rows sorted by id through files: all are read in order, and bytes do not depend on how they were written."""

import random
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stella_assets.storage import sorted_rows
from stella_assets.storage.sorted_rows import SortedRows, write_in_groups

SCHEMA = pa.schema({"id": pa.string(), "text": pa.string()}.items())
IDS = [f"{n * 2654435761 % 2**32:08x}" for n in range(3000)]
ROWS = pl.DataFrame({"id": IDS, "text": ["a" * (n % 50) for n in range(3000)]})


def written(frames: list[pl.DataFrame], folder: Path) -> bytes:
    rows = SortedRows(folder / "parts")
    for frame in frames:
        rows.add(frame)
    write_in_groups(folder / "rows.parquet", SCHEMA, rows.parts(["id"]))
    assert not list((folder / "parts").iterdir())
    return (folder / "rows.parquet").read_bytes()


def test_all_rows_are_read_in_order_and_those_without_an_id_first(tmp_path: Path):
    nameless = pl.DataFrame({"id": [None], "text": ["x"]}, schema=ROWS.schema)
    written([ROWS, nameless, ROWS.clear()], tmp_path)
    assert pl.read_parquet(tmp_path / "rows.parquet").equals(pl.concat([nameless, ROWS.sort("id")]))


@pytest.mark.parametrize("row_group", [100, 65_536])
def test_bytes_do_not_depend_on_how_rows_were_written(row_group: int, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sorted_rows, "ROW_GROUP", row_group)
    once = written([ROWS], tmp_path)
    for parts in (1, 64):
        monkeypatch.setattr(sorted_rows, "PARTS", parts)
        cuts = sorted(random.Random(parts).sample(range(3000), 40))
        pieces = [ROWS[low:high] for low, high in zip([0, *cuts], [*cuts, 3000], strict=True)]
        assert written(pieces[::-1], tmp_path) == once


def test_zero_rows_make_an_empty_table(tmp_path: Path):
    written([], tmp_path)
    assert pq.read_schema(tmp_path / "rows.parquet").equals(SCHEMA)
