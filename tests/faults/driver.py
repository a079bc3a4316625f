"""A program to kill: embeds numbered texts with two teachers in small units and writes a snapshot of them.

python -m tests.faults.driver HOME [TEXTS]
"""

import sys
import time
from pathlib import Path

import numpy as np
from storage.workspace import Workspace

from storage.snapshot_writer import SnapshotWriter, TeacherColumn
from storage.vectors import VectorsByRole
from tests.snapshots import Corpus, vectors_of

UNIT_ROWS = 25
DIMS = {"narrow": 6, "wide": 24}


def main(workspace: Workspace, texts: int) -> None:
    corpus = Corpus(range(texts))
    ids = corpus.table.column("id").to_pylist()
    columns = []
    for name, dim in DIMS.items():

        def encode(unit: list[str], name: str = name, dim: int = dim) -> np.ndarray:
            time.sleep(0.005)
            return vectors_of(unit, dim, name).astype(np.float32)

        vectors = VectorsByRole(workspace, {"document": name, "query": name}, dim)
        vectors.table("document").fill(ids, lambda at: [ids[i] for i in at], encode, UNIT_ROWS, print_waiting)
        columns.append(TeacherColumn(name, dim, 1.0, vectors.fingerprints, vectors.fetch))
    written = SnapshotWriter(workspace, "tiny", print_waiting, UNIT_ROWS).write(
        "final", corpus, columns, {"made": "once"}
    )
    print(f"complete at version {written.version}")


def print_waiting() -> None:
    print("waiting for another writer", flush=True)


if __name__ == "__main__":
    main(Workspace(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 300)
