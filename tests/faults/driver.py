"""A program to kill: embeds numbered texts with two teachers in small units and writes a snapshot of them.

python -m tests.faults.driver WORKSPACE [TEXTS] [MEETING]

MEETING is a folder for two processes that must meet: the one that embeds first holds its lock until the other waits.
"""

import sys
import time
from pathlib import Path

import numpy as np

from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.teachers.vectors import VectorsByRole
from tests.snapshots import Corpus, vectors_of

UNIT_ROWS = 25
DIMS = {"narrow": 6, "wide": 24}


class Meeting:
    """Where two processes meet: a file says that one of them holds the lock, another that the other waits for it."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def hold(self) -> None:
        """Keep the lock until the other process waits for it."""
        while self.folder and not (self.folder / "waiting").exists():
            (self.folder / "holding").touch()
            time.sleep(0.01)

    def say_waiting(self) -> None:
        print("waiting for another writer", flush=True)
        if self.folder:
            (self.folder / "waiting").touch()


def main(workspace: Workspace, texts: int, meeting: Meeting) -> None:
    corpus = Corpus(range(texts))
    ids = corpus.table.column("id").to_pylist()
    columns = []
    for name, dim in DIMS.items():

        def encode(unit: list[str], name: str = name, dim: int = dim) -> np.ndarray:
            meeting.hold()
            time.sleep(0.005)
            return vectors_of(unit, dim, name).astype(np.float32)

        vectors = VectorsByRole(workspace, {"document": name, "query": name}, dim)
        vectors.table("document").fill(ids, lambda at: [ids[i] for i in at], encode, UNIT_ROWS, meeting.say_waiting)
        columns.append(TeacherColumn(name, dim, 1.0, vectors.fingerprints, vectors.fetch))
    written = SnapshotWriter(workspace, "tiny", meeting.say_waiting, UNIT_ROWS).write(
        "final", corpus, columns, {"made": "once"}
    )
    print(f"complete at version {written.version}")


if __name__ == "__main__":
    main(
        Workspace(Path(sys.argv[1])),
        int(sys.argv[2]) if len(sys.argv) > 2 else 300,
        Meeting(Path(sys.argv[3]) if len(sys.argv) > 3 else None),
    )
