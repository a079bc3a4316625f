"""One packed vector column compared with one column per teacher: the prototype of the snapshot's layout.

python -m benchmarks.snapshot_layout [--rows 20000]

Both tables hold the same vectors: 4,096 and 8,192 dimensions, the teachers of the published recipe. Then a teacher of
1,024 dimensions joins.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import typer

from benchmarks import write_row
from stella_assets.storage.codecs import vectors_to_arrow, vectors_to_numpy

DIMS = {"a": 4096, "b": 8192}
JOINS = 1024
BATCH = 128
BLOCK = 2048


def random_block(rows: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors `[rows, dim]` float16, cheaper than from a normal distribution."""
    block = np.random.default_rng(seed).random((rows, dim), dtype=np.float32) - 0.5
    return (block / np.linalg.norm(block, axis=1, keepdims=True)).astype(np.float16)


def ids(start: int, rows: int) -> pa.Array:
    return pa.array([f"{i:032x}" for i in range(start, start + rows)])


def batches(rows: int, dims: dict[str, int], packed: bool) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        blocks = [random_block(count, dim, start + i) for i, dim in enumerate(dims.values())]
        if packed:
            columns = {"id": ids(start, count), "vector": vectors_to_arrow(np.concatenate(blocks, axis=1))}
        else:
            vectors = {f"vector_{name}": vectors_to_arrow(block) for name, block in zip(dims, blocks, strict=True)}
            columns = {"id": ids(start, count), **vectors}
        yield pa.RecordBatch.from_pydict(columns)


def write(folder: str, rows: int, dims: dict[str, int], packed: bool) -> float:
    import lance

    stream = batches(rows, dims, packed)
    first = next(stream)
    started = time.perf_counter()
    reader = pa.RecordBatchReader.from_batches(first.schema, (b for part in ([first], stream) for b in part))
    lance.write_dataset(reader, folder, mode="overwrite", max_rows_per_file=8192)
    return time.perf_counter() - started


def join(folder: str, rows: int) -> float:
    """A third teacher joins a table with one column per teacher: only its own bytes are written."""
    import lance

    schema = pa.schema({"vector_c": pa.list_(pa.float16(), JOINS)}.items())

    @lance.batch_udf(output_schema=schema)
    def vectors(batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(
            [vectors_to_arrow(random_block(len(batch), JOINS, len(batch)))], schema=schema
        )

    dataset = lance.dataset(folder)
    started = time.perf_counter()
    dataset.add_columns(vectors, read_columns=["id"], batch_size=BLOCK)
    return time.perf_counter() - started


def take(dataset: Any, rows: np.ndarray, names: list[str]) -> np.ndarray:
    """One contiguous block `[batch, sum of dims]` float16."""
    table = dataset.take(rows, columns=names)
    blocks = [vectors_to_numpy(table.column(name)) for name in names]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(rows: int = 20_000, repeats: int = 40) -> None:
    """Write, read at random, and let a teacher join; both layouts in one run."""
    import lance

    with tempfile.TemporaryDirectory() as root:
        packed, columns = f"{root}/packed.lance", f"{root}/columns.lance"
        written = {
            "packed": write(packed, rows, DIMS, packed=True),
            "columns": write(columns, rows, DIMS, packed=False),
        }
        open_packed, open_columns = lance.dataset(packed), lance.dataset(columns)
        random = np.random.default_rng(0)
        seconds: dict[str, list[float]] = {"packed": [], "columns": [], "one_teacher": []}
        for _ in range(repeats):
            chosen = random.choice(rows, BATCH, replace=False)
            for kind, dataset, names in (
                ("packed", open_packed, ["vector"]),
                ("columns", open_columns, ["vector_a", "vector_b"]),
                ("one_teacher", open_columns, ["vector_a"]),
            ):
                started = time.perf_counter()
                take(dataset, chosen, names)
                seconds[kind].append(time.perf_counter() - started)
        before = size(Path(columns))
        joined = join(columns, rows)
        bytes_joined = size(Path(columns)) - before
        repacked = write(packed, rows, {**DIMS, "c": JOINS}, packed=True)
    rate = {kind: BATCH / statistics.median(values) for kind, values in seconds.items()}
    write_row(
        "snapshot_layout",
        {
            "rows": rows,
            "dims": sum(DIMS.values()),
            "write_seconds": {kind: round(value, 2) for kind, value in written.items()},
            "take_rows_per_second": {kind: round(value) for kind, value in rate.items()},
            "take_columns_over_packed": round(rate["columns"] / rate["packed"], 2),
            "teacher_joins_seconds": {"packed": round(repacked, 2), "columns": round(joined, 2)},
            "teacher_joins_speedup": round(repacked / joined, 1),
            "teacher_joins_mib": {"columns": bytes_joined >> 20, "packed": rows * (12_288 + JOINS) * 2 >> 20},
        },
    )


if __name__ == "__main__":
    typer.run(main)
