"""`kill -9` at any moment, a full disk, two writers at once: nothing lost, doubled or half-written."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from storage.workspace import Workspace

from storage.database import open_table, table_names
from storage.integrity import verify_table
from storage.snapshot import Snapshot, snapshot_tags
from storage.vectors import VectorTable
from tests.faults.driver import DIMS
from tests.snapshots import Corpus, vectors_of

TEXTS = 300
KILLS = 12


def start(workspace: Workspace, texts: int = TEXTS, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.driver", str(workspace.root), str(texts)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, cwd=Path(__file__).parents[2], **pipes, **options)


def require_whole(workspace: Workspace, texts: int = TEXTS) -> None:
    """Every table is what one undisturbed run makes, row by row."""
    ids = Corpus(range(texts)).table.column("id").to_pylist()
    for name, dim in DIMS.items():
        table = open_table(workspace, f"teacher_vectors.{name}")
        assert sorted(table.to_table(columns=["id"]).column("id").to_pylist()) == ids
        expected = vectors_of(ids, dim, name)
        np.testing.assert_array_equal(VectorTable(workspace, name, dim).fetch(ids), expected)
    snapshot = Snapshot.open(workspace, "tiny", "final")
    rows = np.arange(texts)
    assert snapshot.take(rows, ["id"])["id"] == ids
    expected = np.concatenate([vectors_of(ids, dim, name) for name, dim in DIMS.items()], axis=1)
    np.testing.assert_array_equal(snapshot.vectors(rows), expected)
    assert [damage for name in table_names(workspace) for damage in verify_table(workspace, name).damages] == []


def test_kills_at_random_moments_end_in_the_same_tables(workspace: Workspace):
    began = time.monotonic()
    undisturbed = start(Workspace(workspace.root.with_name("undisturbed")))
    assert undisturbed.wait() == 0
    duration = time.monotonic() - began
    random = np.random.default_rng(0)
    survived = 0
    for _ in range(KILLS):
        process = start(workspace)
        time.sleep(duration * random.uniform(0.3, 1.0))  # before that it has only imported libraries
        survived += process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name in table_names(workspace):  # what is committed is whole after every kill
            if name.startswith("teacher_vectors.") and (table := open_table(workspace, name)) is not None:
                ids = table.to_table(columns=["id"]).column("id").to_pylist()
                assert len(set(ids)) == len(ids)
                assert len(ids) % 25 == 0
        assert set(snapshot_tags(workspace, "tiny")) <= {"final"}
    assert survived < KILLS
    done = start(workspace)
    assert done.wait(timeout=60) == 0, done.stderr.read()
    require_whole(workspace)


def test_two_writers_at_once_wait_for_each_other_and_agree(workspace: Workspace):
    both = [start(workspace) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "waiting for another writer" in outputs[0][0] + outputs[1][0]
    require_whole(workspace)


def test_a_writer_that_died_with_the_lock_does_not_stop_the_next(workspace: Workspace):
    process = start(workspace)
    deadline = time.monotonic() + 30
    while not (workspace.locks / "teacher_vectors.narrow.lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = start(workspace)
    assert done.wait(timeout=60) == 0
    require_whole(workspace)


@pytest.mark.parametrize("allowed_bytes", [300, 1500])
def test_a_full_disk_is_said_and_what_was_committed_stays(workspace: Workspace, allowed_bytes: int):
    """A limit on the size of files stands in for a full disk: the write fails half way, with the system's error."""
    first = start(workspace, texts=50)
    assert first.wait() == 0

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (allowed_bytes, allowed_bytes))

    failed = start(workspace, preexec_fn=limit)
    _, said = failed.communicate(timeout=60)
    assert failed.returncode == 1
    assert "the disk is full" in said
    assert "Nothing that was committed is lost" in said
    require_whole(workspace, 50)
