"""Garbage collection frees what nothing needs, and nothing else."""

from pathlib import Path

import numpy as np

from stella_assets.corpus.text import text_id
from storage.database import table_names
from storage.garbage import Needed, collect
from storage.home import Home
from storage.integrity import verify_table
from storage.snapshot import Snapshot, snapshot_tags
from storage.snapshot_writer import SnapshotWriter, TeacherColumn
from storage.units import write_unit
from storage.vectors import VectorTable, vector_schema
from tests.snapshots import Corpus, Teacher, require_equal, vectors_of, write

NOTHING = Needed(frozenset(), frozenset())


def files(home: Home) -> dict[str, int]:
    return {str(p.relative_to(home.vectors)): p.stat().st_size for p in Path(home.vectors).rglob("*") if p.is_file()}


def fill(home: Home, fingerprint: str, count: int = 20) -> None:
    ids = [text_id(f"text number {i}") for i in range(count)]
    VectorTable(home, fingerprint, 4).fill(
        ids, lambda at: [ids[i] for i in at], lambda unit: vectors_of(unit, 4, fingerprint).astype(np.float32)
    )


def test_a_dry_run_names_what_would_go_and_changes_nothing(home: Home):
    write(home, "one", Corpus(range(100)), Teacher("small", 3))
    write(home, "two", Corpus(range(50, 160)), Teacher("small", 3, fit="2"))
    fill(home, "unused")
    before = files(home)
    found = collect(home, Needed(frozenset(), {("tiny", "two")}), dry_run=True, superseded=True)
    assert files(home) == before
    assert [(g.table, g.bytes > 0) for g in found] == [
        ("tiny.concatenated_vectors", True),
        ("teacher_vectors.unused", True),
    ]
    freed = collect(home, Needed(frozenset(), {("tiny", "two")}), dry_run=False, superseded=True)
    assert freed == found
    assert sum(files(home).values()) <= sum(before.values()) - sum(g.bytes for g in found)


def test_a_tag_keeps_its_snapshot_and_the_vectors_of_its_teachers(home: Home):
    fill(home, "small1")
    fill(home, "other")
    write(home, "one", Corpus(range(20)), Teacher("small", 3))
    write(home, "two", Corpus(range(20)), Teacher("wide", 5))
    collect(home, NOTHING, dry_run=False, superseded=False)
    assert list(snapshot_tags(home, "tiny")) == ["one", "two"]
    require_equal(home, "one", Corpus(range(20)), Teacher("small", 3))
    assert "teacher_vectors.small1" in table_names(home)
    assert "teacher_vectors.other" not in table_names(home)


def test_a_live_recipe_keeps_its_snapshot_when_superseded_ones_go(home: Home):
    small, wide = Teacher("small", 3), Teacher("wide", 5)
    write(home, "one", Corpus(range(120)), small, wide)
    write(home, "two", Corpus(range(40, 150)), small)
    write(home, "three", Corpus(range(40, 160)), small)
    collect(home, Needed(frozenset(), {("tiny", "two")}), dry_run=False, superseded=True)
    assert list(snapshot_tags(home, "tiny")) == ["two"]
    require_equal(home, "two", Corpus(range(40, 150)), small)
    assert verify_table(home, "tiny.concatenated_vectors").damages == []
    write(home, "four", Corpus(range(170)), small, wide)  # and the next snapshot goes on from it
    require_equal(home, "four", Corpus(range(170)), small, wide)


def test_what_a_killed_writer_left_is_freed(home: Home):
    fill(home, "used")
    uri = str(Path(home.vectors) / "teacher_vectors.used.lance")
    ids = [text_id("left over")]
    schema = vector_schema(4, {})
    import pyarrow as pa

    from storage.database import to_arrow

    table = pa.Table.from_arrays([pa.array(ids), to_arrow(vectors_of(ids, 4, "x"))], schema=schema)
    write_unit(uri, table, schema)
    write_unit(str(Path(home.vectors) / "teacher_vectors.never.lance"), table, schema)  # killed before its first commit
    assert len(VectorTable(home, "never", 4)) == 0
    found = collect(home, Needed({"used"}, frozenset()), dry_run=False, superseded=False)
    (garbage,) = [item for item in found if item.bytes]
    assert (garbage.table, garbage.files) == ("teacher_vectors.used", 1)
    assert len(VectorTable(home, "used", 4)) == 20
    assert len(list(Path(uri).glob("data/*"))) == len(list(Path(uri).glob("_digests/*"))) == 1
    assert not any(name.startswith("teacher_vectors.never") and "data" in name for name in files(home))


def test_nothing_is_freed_twice(home: Home):
    write(home, "one", Corpus(range(60)), Teacher("small", 3))
    SnapshotWriter(home, "other", unit_rows=50).write(
        "x", Corpus(range(10)), [TeacherColumn("t", 3, 1.0, {}, lambda ids, _r: vectors_of(ids, 3, "t"))], {}
    )
    assert collect(home, NOTHING, dry_run=False, superseded=False) == []
    assert len(Snapshot.open(home, "other", "x")) == 10
