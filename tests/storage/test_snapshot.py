"""Snapshots: tagged versions that stay readable and explain themselves."""

import json

import numpy as np
import pyarrow as pa
import pytest

from storage.database import connect, to_arrow
from storage.home import Home
from storage.snapshot import TEXT_COLUMNS, Layout, Snapshots, snapshot_schema

LAYOUT = Layout(("a", "b"), (3, 2), (1.0, 0.5))


def batches(schema: pa.Schema, rows: int, value: float):
    for start in range(0, rows, 10):
        count = min(10, rows - start)
        text = [pa.array([f"{name} {start + i}" for i in range(count)]) for name in TEXT_COLUMNS]
        yield pa.RecordBatch.from_arrays([*text, to_arrow(np.full((count, 5), value))], schema=schema)


def test_an_earlier_snapshot_stays_readable_after_a_later_one(home: Home):
    snapshots = Snapshots(home, "tiny")
    schema = snapshot_schema(LAYOUT, {"corpus": "digest"})
    snapshots.write("one", schema, batches(schema, 25, 0.5))
    snapshots.write("two", schema, batches(schema, 31, 0.25))
    assert (len(snapshots.open("one")), len(snapshots.open("two"))) == (25, 31)
    assert snapshots.open("one").take([24, 3], ["vector"])["vector"].tolist() == [[0.5] * 5] * 2
    assert snapshots.open("two").take([30], ["id"])["id"] == ["id 30"]
    with pytest.raises(ValueError, match="no snapshot is tagged three"):
        snapshots.open("three")


def test_plain_lancedb_reads_the_table_and_its_layout(home: Home):
    schema = snapshot_schema(LAYOUT, {"corpus": "digest"})
    Snapshots(home, "tiny").write("one", schema, batches(schema, 5, 1.0))
    table = connect(home.lancedb).open_table("tiny.concatenated_vectors")
    assert table.count_rows() == 5
    assert json.loads(table.schema.metadata[b"stella.layout"])["dims"] == [3, 2]
    assert json.loads(table.schema.metadata[b"stella.lineage"]) == {"corpus": "digest"}


def test_blocks_stream_in_row_order_and_lengths_count_characters(home: Home):
    snapshots = Snapshots(home, "tiny")
    schema = snapshot_schema(LAYOUT, {})
    snapshots.write("one", schema, batches(schema, 25, 0.5))
    snapshot = snapshots.open("one")
    assert sum(len(block) for block in snapshot.vectors(batch_rows=8)) == 25
    assert snapshot.text_lengths().tolist() == [len(f"text {i}") for i in range(25)]
