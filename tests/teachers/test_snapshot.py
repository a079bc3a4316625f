"""Snapshots: tagged versions that stay readable, state their lineage, and write only what changed."""

import json
from pathlib import Path

import numpy as np
import pytest

from stella_assets.storage.database import connect
from stella_assets.storage.errors import MissingSnapshotError
from stella_assets.storage.units import read_digest
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import Snapshot, snapshot_tags
from stella_assets.teachers.snapshot_writer import Written
from tests.snapshots import Corpus, Teacher, require_equal, write


def files(workspace: Workspace) -> set[str]:
    return {str(path.name) for path in Path(workspace.vectors).glob("tiny.*/data/*")}


@pytest.fixture
def small() -> Teacher:
    return Teacher("small", 3)


@pytest.fixture
def wide() -> Teacher:
    return Teacher("wide", 5, weight=0.5)


def test_new_texts_write_only_their_own_rows(workspace: Workspace, small: Teacher, wide: Teacher):
    write(workspace, "one", Corpus(range(200)), small, wide)
    before = files(workspace)
    corpus = Corpus(range(220))
    written = write(workspace, "two", corpus, small, wide)
    assert (written.rows, written.rows_written, written.columns_written) == (220, 20, ())
    assert len(small.asked) == len(wide.asked) == 20
    assert len(files(workspace) - before) == 3  # one unit: its texts and two teachers
    require_equal(workspace, "two", corpus, small, wide)
    require_equal(workspace, "one", Corpus(range(200)), small, wide)


def test_a_new_teacher_writes_only_its_own_column(workspace: Workspace, small: Teacher, wide: Teacher):
    corpus = Corpus(range(120))
    write(workspace, "one", corpus, small)
    written = write(workspace, "two", corpus, small, wide)
    assert (written.rows_written, written.columns_written) == (0, ("wide",))
    assert small.asked == []
    require_equal(workspace, "two", corpus, small, wide)
    require_equal(workspace, "one", corpus, small)


def test_a_removed_source_writes_only_a_list_of_rows(workspace: Workspace, small: Teacher):
    write(workspace, "one", Corpus(range(200)), small)
    before = files(workspace)
    corpus = Corpus([i for i in range(200) if i % 4])
    assert write(workspace, "two", corpus, small).rows_written == 0
    assert files(workspace) == before
    require_equal(workspace, "two", corpus, small)
    again = Corpus(range(0, 210))
    assert write(workspace, "three", again, small).rows_written == 60  # what was deleted is written again
    require_equal(workspace, "three", again, small)
    assert len(Snapshot.open(workspace, "tiny", "two")) == 150


def test_vectors_of_a_removed_or_changed_teacher_are_not_mixed_with_others(
    workspace: Workspace, small: Teacher, wide: Teacher
):
    corpus = Corpus(range(80))
    write(workspace, "one", corpus, small, wide)
    refitted = Teacher("small", 3, fit="2")
    written = write(workspace, "two", corpus, refitted)
    assert written.columns_written == ("small",)
    require_equal(workspace, "two", corpus, refitted)
    assert Snapshot.open(workspace, "tiny", "two").fingerprints == {"small": {"document": "small2", "query": "small2"}}
    larger = Teacher("small", 4, fit="2")
    assert write(workspace, "three", corpus, larger).columns_written == ("small",)
    require_equal(workspace, "three", corpus, larger)


def test_rows_whose_source_changed_are_written_and_weights_alone_write_nothing(workspace: Workspace, small: Teacher):
    write(workspace, "one", Corpus(range(100)), small)
    corpus = Corpus(range(100), source="library")
    assert 50 <= write(workspace, "two", corpus, small).rows_written < 100  # a unit that lost over half is rewritten
    require_equal(workspace, "two", corpus, small)
    heavier = Teacher("small", 3, weight=2.0)
    before = files(workspace)
    assert write(workspace, "three", corpus, heavier).rows_written == 0
    assert files(workspace) == before
    assert Snapshot.open(workspace, "tiny", "three").layout.weights == (2.0,)


def test_a_history_of_changes_ends_in_the_same_table_as_one_write(workspace: Workspace, small: Teacher, wide: Teacher):
    random = np.random.default_rng(0)
    for number in range(6):
        chosen = sorted(random.choice(300, 240, replace=False).tolist())
        teachers = [small, wide] if number % 2 else [wide]
        corpus = Corpus(chosen)
        write(workspace, f"tag{number}", corpus, *teachers)
        require_equal(workspace, f"tag{number}", corpus, *teachers)
    assert list(snapshot_tags(workspace, "tiny")) == [f"tag{number}" for number in range(6)]


def test_an_existing_snapshot_is_left_unchanged(workspace: Workspace, small: Teacher):
    first = write(workspace, "one", Corpus(range(30)), small)
    assert write(workspace, "one", Corpus(range(30)), small) == Written(first.version, 30, 0, ())
    with pytest.raises(MissingSnapshotError, match=r"no snapshot is tagged three\. It has one"):
        Snapshot.open(workspace, "tiny", "three")


def test_plain_lancedb_reads_the_table_and_its_lineage(workspace: Workspace, small: Teacher, wide: Teacher):
    write(workspace, "one", Corpus(range(20)), small, wide)
    table = connect(workspace.vectors).open_table("tiny.concatenated_vectors")
    assert table.count_rows() == 20
    assert json.loads(table.schema.metadata[b"stella.layout"])["dims"] == [3, 5]
    assert json.loads(table.schema.metadata[b"stella.lineage"]) == {"corpus": "one"}
    first = table.to_arrow().to_pylist()[3]
    found = table.search(first["vector_wide"], vector_column_name="vector_wide").limit(1).to_list()
    assert found[0]["id"] == first["id"]


def test_targets_are_unit_vectors_by_weight(workspace: Workspace, small: Teacher, wide: Teacher):
    write(workspace, "one", Corpus(range(20)), small, wide)
    snapshot = Snapshot.open(workspace, "tiny", "one")
    target = snapshot.layout.targets(snapshot.vectors([3, 1, 2]))
    np.testing.assert_allclose(np.linalg.norm(target, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(target[:, :3], axis=1) ** 2, 0.8, atol=2e-3)  # 1 / (1 + 0.25)


def test_every_file_of_a_snapshot_has_a_digest(workspace: Workspace, small: Teacher):
    write(workspace, "one", Corpus(range(100)), small)
    write(workspace, "two", Corpus(range(3, 100)), small)
    snapshot = Snapshot.open(workspace, "tiny", "two")
    paths = [f"data/{f.path}" for fragment in snapshot.dataset.get_fragments() for f in fragment.data_files()]
    paths += [f.deletion_file() for f in snapshot.dataset.get_fragments() if f.deletion_file()]
    assert len(paths) > 4
    for path in paths:
        digest = read_digest(snapshot.dataset.uri, path)
        assert digest.bytes == (Path(snapshot.dataset.uri) / path).stat().st_size
