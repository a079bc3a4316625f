"""The store at a million rows: time and peak memory of each operation, each in a process of its own.

    python -m benchmarks.store_scale [--rows 1000000]

Vectors are synthetic, ids are hashes of texts, 50 sources. The same at a tenth of the rows shows how time grows; a
hundredth of new texts shows what an increment costs.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from storage.workspace import Workspace

from benchmarks import write_row
from benchmarks.snapshot_layout import random_block
from stella_assets.core.manifest import Identity, Manifest
from stella_assets.core.step import Artefact
from stella_assets.corpus.build import CORPUS_FILE
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.text import text_id
from storage.memory import PeakMemory
from storage.snapshot import Snapshot
from storage.statistics import TEXTS
from storage.vectors import VectorsByRole

DIM = 1024
OPERATIONS = ("embed", "snapshot", "statistics", "verify", "gc")
FINGERPRINTS = {"document": "synthetic", "query": "synthetic"}


def write_corpus(root: Path, rows: int) -> None:
    """Numbered texts in the form of a corpus artefact, sorted by id, without holding them twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbered = sorted((text_id(f"text number {i}"), i) for i in range(rows))
    with pq.ParquetWriter(root / CORPUS_FILE, TEXTS, compression="zstd") as writer:
        for start in range(0, rows, 65_536):
            part = numbered[start : start + 65_536]
            columns: dict[str, list[str]] = {
                "id": [key for key, _ in part],
                "text": [f"text number {i}" for _, i in part],
                "source": [f"source_{i % 50}" for _, i in part],
                "split": ["dev" if i % 20 == 0 else "train" for _, i in part],
            }
            filled = {name: columns.get(name, ["document"] * len(part)) for name in TEXTS.names}
            writer.write_table(pa.table(filled, schema=TEXTS))


def texts_of(root: Path) -> CorpusTexts:
    return CorpusTexts(Artefact("corpus", root, Manifest(Identity("corpus", "1", {}, {}), {})))


def operate(root: Path, operation: str, tag: str) -> None:
    from storage.garbage import Needed, collect
    from storage.integrity import verify_table
    from storage.snapshot_writer import SnapshotWriter, TeacherColumn

    workspace, texts = Workspace(root / "workspace"), texts_of(root / tag)
    vectors = VectorsByRole(workspace, FINGERPRINTS, DIM)
    match operation:
        case "embed":
            keys = np.concatenate([_keys(batch) for batch in texts.scan(["id"])])
            vectors.table("document").fill(
                keys, lambda at: at, lambda at: random_block(len(at), DIM, int(at[0])).astype(np.float32)
            )
        case "snapshot":
            column = TeacherColumn("synthetic", DIM, 1.0, FINGERPRINTS, vectors.fetch)
            SnapshotWriter(workspace, "context").write(tag, texts, [column], {})
        case "statistics":
            from stella_assets.teachers.statistics import measure_snapshot

            assert measure_snapshot(Snapshot.open(workspace, "context", tag))["stats"][0]["rows"] == len(texts)
        case "verify":
            for name in ("teacher_vectors.synthetic", "context.concatenated_vectors"):
                assert verify_table(workspace, name).damages == []
        case "gc":
            collect(workspace, Needed({"synthetic"}, {("context", tag)}), dry_run=False, superseded=True)


def _keys(batch: Any) -> np.ndarray:
    from storage.database import to_keys

    return to_keys(batch.column(0))


def measured(root: Path, operation: str, tag: str) -> dict[str, float]:
    """Run an operation in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.store_scale", "--inside", json.dumps([str(root), operation, tag])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def inside(root: str, operation: str, tag: str) -> None:
    import lance  # noqa: F401 (its import is no part of the measurement)
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
