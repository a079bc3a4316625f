"""The store with a million rows: time and peak memory of each operation, each in a process of its own.

    python -m benchmarks.store_scale [--rows 1000000]

Vectors are synthetic, ids are hashes of texts, 50 sources. The same at a tenth of the rows shows how time grows; a
hundredth of new texts shows the cost of an increment.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks import write_row
from benchmarks.snapshot_layout import random_block
from stella_assets.corpus.read import CORPUS_FILE, CorpusTexts
from stella_assets.corpus.tables import TEXTS
from stella_assets.corpus.text import text_id
from stella_assets.storage.memory import PeakMemory
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.roles import read_keys
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.tables import SNAPSHOT, VECTORS
from stella_assets.teachers.vectors import VectorsByRole

DIM = 1024
OPERATIONS = ("embed", "snapshot", "statistics", "verify", "gc")
RECIPE = "benchmark"
FINGERPRINTS = {"document": "synthetic", "query": "synthetic"}


def write_corpus(root: Path, rows: int) -> None:
    """Numbered texts in the form of a corpus artefact, sorted by id; they are in memory once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbered = sorted((text_id(f"text number {i}"), i) for i in range(rows))
    with pq.ParquetWriter(root / CORPUS_FILE, TEXTS.schema, compression="zstd") as writer:
        for start in range(0, rows, 65_536):
            part = numbered[start : start + 65_536]
            columns: dict[str, list[str]] = {
                "id": [key for key, _ in part],
                "text": [f"text number {i}" for _, i in part],
                "source": [f"source_{i % 50}" for _, i in part],
                "split": ["dev" if i % 20 == 0 else "train" for _, i in part],
            }
            filled = {name: columns.get(name, ["document"] * len(part)) for name in TEXTS.schema.names}
            writer.write_table(pa.table(filled, schema=TEXTS.schema))


def operate(root: Path, operation: str, tag: str) -> None:
    from stella_assets.storage.integrity import verify_table
    from stella_assets.teachers.garbage import Needed, collect_garbage
    from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn

    workspace, texts = Workspace(root / "workspace"), CorpusTexts(root / tag)
    vectors = VectorsByRole(workspace, FINGERPRINTS, DIM)
    match operation:
        case "embed":
            keys = read_keys(texts)[0]
            vectors.table("document").fill(
                keys, lambda at: at, lambda at: random_block(len(at), DIM, int(at[0])).astype(np.float32)
            )
        case "snapshot":
            column = TeacherColumn("synthetic", DIM, 1.0, FINGERPRINTS, vectors.fetch)
            SnapshotWriter(workspace, RECIPE).write(tag, texts, [column], {})
        case "statistics":
            from stella_assets.teachers.statistics import measure_snapshot

            assert measure_snapshot(Snapshot.open(workspace, RECIPE, tag))["stats"][0]["rows"] == len(texts)
        case "verify":
            for name in (VECTORS + "synthetic", RECIPE + SNAPSHOT):
                assert verify_table(workspace, name).damages == []
        case "gc":
            collect_garbage(workspace, lambda: Needed({"synthetic"}, {(RECIPE, tag)}), dry_run=False, superseded=True)


def measured(root: Path, operation: str, tag: str) -> dict[str, float]:
    """Run an operation in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.store_scale", "--inside", json.dumps([str(root), operation, tag])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def inside(root: str, operation: str, tag: str) -> None:
    import lance  # noqa: F401 (its import is not measured)
    import polars  # noqa: F401

    with PeakMemory() as memory:
        started = time.perf_counter()
        operate(Path(root), operation, tag)
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": round(seconds, 2), "peak_mib": memory.peak_mib}))


def sizes(rows: int) -> Iterator[int]:
    yield from (rows // 10, rows)


def main(
    rows: Annotated[int, typer.Option(help="Rows of the large store.")] = 1_000_000,
    inside_of: Annotated[str, typer.Option("--inside", hidden=True)] = "",
) -> None:
    """Measure each operation at a tenth of the rows, at all of them, and for a hundredth of new ones."""
    if inside_of:
        inside(*json.loads(inside_of))
        return
    found: dict[str, dict[str, dict[str, float]]] = {}
    for size in sizes(rows):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for tag, texts in (("full", size), ("increment", size + size // 100)):
                (root / tag).mkdir()
                write_corpus(root / tag, texts)
            found[f"{size}"] = {operation: measured(root, operation, "full") for operation in OPERATIONS}
            found[f"{size} + 1%"] = {op: measured(root, op, "increment") for op in ("embed", "snapshot")}
            print(json.dumps(found, indent=1), flush=True)
    small, large = found[f"{rows // 10}"], found[f"{rows}"]
    write_row(
        "store_scale",
        {
            "rows": rows,
            "dim": DIM,
            "measured": found,
            "largest_peak_mib": max(op["peak_mib"] for size in found.values() for op in size.values()),
            "growth_for_ten_times_the_rows": {
                op: round(large[op]["seconds"] / max(0.01, small[op]["seconds"]), 1) for op in OPERATIONS
            },
        },
    )


if __name__ == "__main__":
    typer.run(main)
