"""Snapshots in tests: texts in memory, and teachers whose vectors depend on the text alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stella_assets.corpus.text import text_id
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import TEXT_COLUMNS, Snapshot
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn, Written


class MemoryTexts:
    """Texts in memory, as the writer wants them."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        ordered = sorted(rows, key=lambda row: row["id"])
        self.table = pa.Table.from_pylist(ordered, schema=pa.schema([(name, pa.string()) for name in TEXT_COLUMNS]))

    def __len__(self) -> int:
        return len(self.table)

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(list(columns)).to_batches(max_chunksize=30)

    def take(self, positions: np.ndarray, columns: Sequence[str]) -> pa.Table:
        assert (np.diff(positions) > 0).all()
        return self.table.select(list(columns)).take(positions)


class Corpus(MemoryTexts):
    """Numbered texts of two sources."""

    def __init__(self, numbers: Sequence[int], source: str = "books") -> None:
        super().__init__(
            [
                {"id": text_id(f"text number {i}"), "text": f"text number {i}", "source": source if i % 2 else "web",
                 "section": "s", "role": "query" if i % 10 == 0 else "document", "split": "train" if i % 5 else "dev"}
                for i in numbers
            ]
        )  # fmt: skip


def vectors_of(ids: Sequence[str], dim: int, teacher: str) -> np.ndarray:
    """Unit vectors that depend on text and teacher alone."""
    rows = [np.random.default_rng(int(text_id(key + teacher)[:8], 16)).standard_normal(dim) for key in ids]
    block = np.array(rows, dtype=np.float32).reshape(len(ids), dim)
    return (block / np.linalg.norm(block, axis=1, keepdims=True)).astype(np.float16)


class Teacher:
    """A teacher column that counts what is asked of it."""

    def __init__(self, name: str, dim: int, weight: float = 1.0, fit: str = "1") -> None:
        self.asked: list[str] = []
        self.column = TeacherColumn(name, dim, weight, {"document": name + fit, "query": name + fit}, self.fetch)

    def fetch(self, ids: list[str], roles: list[str]) -> np.ndarray:
        assert len(ids) == len(roles)
        self.asked += ids
        return vectors_of(ids, self.column.dim, next(iter(self.column.fingerprints.values())))


def write(workspace: Workspace, tag: str, corpus: Corpus, *teachers: Teacher, **options: Any) -> Written:
    for teacher in teachers:
        teacher.asked.clear()
    writer = SnapshotWriter(workspace, "tiny", unit_rows=50)
    return writer.write(tag, corpus, [teacher.column for teacher in teachers], {"corpus": tag}, **options)


def require_equal(workspace: Workspace, tag: str, corpus: Corpus, *teachers: Teacher) -> None:
    """The snapshot is what the corpus and the teachers say, row by row."""
    snapshot = Snapshot.open(workspace, "tiny", tag)
    ids = corpus.table.column("id").to_pylist()
    rows = np.arange(len(snapshot))
    assert {n: corpus.table.column(n).to_pylist() for n in TEXT_COLUMNS} == snapshot.take(rows, TEXT_COLUMNS)
    expected = [vectors_of(ids, t.column.dim, t.column.fingerprints["query"]) for t in teachers]
    np.testing.assert_array_equal(snapshot.vectors(rows), np.concatenate(expected, axis=1))
    lengths = [len(text) for text in corpus.table.column("text").to_pylist()]
    assert snapshot.text_lengths().tolist() == lengths
    snapshot.dataset.validate()
