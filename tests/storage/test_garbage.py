"""Garbage collection frees what nothing needs, and nothing else."""

from pathlib import Path

import numpy as np

from stella_assets.corpus.text import text_id
from stella_assets.storage.database import table_names
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.units import write_unit
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.garbage import Needed, collect_garbage
from stella_assets.teachers.snapshot import Snapshot, snapshot_tags
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.teachers.vectors import VectorTable, vector_schema
from tests.snapshots import Corpus, Teacher, require_equal, vectors_of, write

NOTHING = Needed(frozenset(), frozenset())


def files(workspace: Workspace) -> dict[str, int]:
    return {
        str(p.relative_to(workspace.vectors)): p.stat().st_size
        for p in Path(workspace.vectors).rglob("*")
        if p.is_file()
    }


def fill(workspace: Workspace, fingerprint: str, count: int = 20) -> None:
    ids = [text_id(f"text number {i}") for i in range(count)]
    VectorTable(workspace, fingerprint, 4).fill(
        ids, lambda at: [ids[i] for i in at], lambda unit: vectors_of(unit, 4, fingerprint).astype(np.float32)
    )


def test_a_dry_run_names_what_would_be_removed_and_changes_nothing(workspace: Workspace):
    write(workspace, "one", Corpus(range(100)), Teacher("small", 3))
    write(workspace, "two", Corpus(range(50, 160)), Teacher("small", 3, fit="2"))
    fill(workspace, "unused")
    before = files(workspace)
    found = collect_garbage(workspace, lambda: Needed(frozenset(), {("tiny", "two")}), dry_run=True, superseded=True)
    assert files(workspace) == before
    assert [(g.table, g.bytes > 0) for g in found] == [
        ("tiny.concatenated_vectors", True),
        ("teacher_vectors.unused", True),
    ]
    freed = collect_garbage(workspace, lambda: Needed(frozenset(), {("tiny", "two")}), dry_run=False, superseded=True)
    assert freed == found
    assert sum(files(workspace).values()) <= sum(before.values()) - sum(g.bytes for g in found)


def test_a_tag_keeps_its_snapshot_and_the_vectors_of_its_teachers(workspace: Workspace):
    fill(workspace, "small1")
    fill(workspace, "other")
    write(workspace, "one", Corpus(range(20)), Teacher("small", 3))
    write(workspace, "two", Corpus(range(20)), Teacher("wide", 5))
    collect_garbage(workspace, lambda: NOTHING, dry_run=False, superseded=False)
    assert list(snapshot_tags(workspace, "tiny")) == ["one", "two"]
    require_equal(workspace, "one", Corpus(range(20)), Teacher("small", 3))
    assert "teacher_vectors.small1" in table_names(workspace)
    assert "teacher_vectors.other" not in table_names(workspace)


def test_a_live_recipe_keeps_its_snapshot_when_superseded_ones_are_removed(workspace: Workspace):
    small, wide = Teacher("small", 3), Teacher("wide", 5)
    write(workspace, "one", Corpus(range(120)), small, wide)
    write(workspace, "two", Corpus(range(40, 150)), small)
    write(workspace, "three", Corpus(range(40, 160)), small)
    collect_garbage(workspace, lambda: Needed(frozenset(), {("tiny", "two")}), dry_run=False, superseded=True)
    assert list(snapshot_tags(workspace, "tiny")) == ["two"]
    require_equal(workspace, "two", Corpus(range(40, 150)), small)
    assert verify_table(workspace, "tiny.concatenated_vectors").damages == []
    write(workspace, "four", Corpus(range(170)), small, wide)  # and the next snapshot continues from it
    require_equal(workspace, "four", Corpus(range(170)), small, wide)


def test_what_a_killed_writer_left_is_freed(workspace: Workspace):
    fill(workspace, "used")
    uri = str(Path(workspace.vectors) / "teacher_vectors.used.lance")
    ids = [text_id("left over")]
    schema = vector_schema(4, {})
    import pyarrow as pa

    from stella_assets.storage.codecs import vectors_to_arrow

    table = pa.Table.from_arrays([pa.array(ids), vectors_to_arrow(vectors_of(ids, 4, "x"))], schema=schema)
    write_unit(uri, table, schema)
    write_unit(
        str(Path(workspace.vectors) / "teacher_vectors.never.lance"), table, schema
    )  # killed before its first commit
    assert len(VectorTable(workspace, "never", 4)) == 0
    found = collect_garbage(workspace, lambda: Needed({"used"}, frozenset()), dry_run=False, superseded=False)
    (garbage,) = [item for item in found if item.bytes]
    assert (garbage.table, garbage.files) == ("teacher_vectors.used", 1)
    assert len(VectorTable(workspace, "used", 4)) == 20
    assert len(list(Path(uri).glob("data/*"))) == len(list(Path(uri).glob("_digests/*.lance.json"))) == 1
    assert not any(name.startswith("teacher_vectors.never") and "data" in name for name in files(workspace))


def test_nothing_is_freed_twice(workspace: Workspace):
    write(workspace, "one", Corpus(range(60)), Teacher("small", 3))
    SnapshotWriter(workspace, "other", unit_rows=50).write(
        "x", Corpus(range(10)), [TeacherColumn("t", 3, 1.0, {}, lambda ids, _r: vectors_of(ids, 3, "t"))], {}
    )
    assert collect_garbage(workspace, lambda: NOTHING, dry_run=False, superseded=False) == []
    assert len(Snapshot.open(workspace, "other", "x")) == 10
