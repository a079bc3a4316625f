"""`kill -9` at any moment, a full disk, two writers at once: nothing is lost, duplicated or incomplete."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stella_assets.storage.database import open_table, table_names
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import Snapshot, snapshot_tags
from stella_assets.teachers.vectors import VectorTable
from tests.faults.driver import DIMS
from tests.snapshots import Corpus, vectors_of

TEXTS = 300
KILLS = 12
PATIENCE = 600
"""Seconds after which a process counts as stuck, also on a busy machine."""


def start(workspace: Workspace, texts: int = TEXTS, meeting: Path | None = None, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.driver", str(workspace.root), str(texts)]
    if meeting:
        command.append(str(meeting))
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


@pytest.mark.slow
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
        for name in table_names(workspace):  # what is committed is complete after every kill
            if name.startswith("teacher_vectors.") and (table := open_table(workspace, name)) is not None:
                ids = table.to_table(columns=["id"]).column("id").to_pylist()
                assert len(set(ids)) == len(ids)
                assert len(ids) % 25 == 0
        assert set(snapshot_tags(workspace, "tiny")) <= {"final"}
    assert survived < KILLS
    done = start(workspace)
    assert done.wait(timeout=PATIENCE) == 0, done.stderr.read()
    require_whole(workspace)


def test_two_writers_at_once_wait_for_each_other_and_agree(workspace: Workspace, tmp_path: Path):
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    first = start(workspace, meeting=meeting)
    wait_for_file(meeting / "holding", first)
    second = start(workspace, meeting=meeting)
    outputs = [process.communicate(timeout=PATIENCE) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert "waiting for another writer" in outputs[1][0]
    require_whole(workspace)


def wait_for_file(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a process has made a file."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_writer_that_died_with_the_lock_does_not_stop_the_next(workspace: Workspace, tmp_path: Path):
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    process = start(workspace, meeting=meeting)
    wait_for_file(meeting / "holding", process)  # it embeds and holds the lock
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = start(workspace)
    assert done.wait(timeout=PATIENCE) == 0
    require_whole(workspace)


@pytest.mark.parametrize("allowed_bytes", [300, 1500])
def test_a_full_disk_is_reported_and_what_was_committed_stays(workspace: Workspace, allowed_bytes: int):
    """A limit on the size of files imitates a full disk: a write fails midway, with the system's error."""
    first = start(workspace, texts=50)
    assert first.wait() == 0

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (allowed_bytes, allowed_bytes))

    failed = start(workspace, preexec_fn=limit)
    _, said = failed.communicate(timeout=PATIENCE)
    assert failed.returncode == 1
    assert "the disk is full" in said
    assert "Nothing that was committed is lost" in said
    require_whole(workspace, 50)


@pytest.mark.slow
def test_commands_that_were_killed_are_completed_by_the_same_command(tmp_path: Path):
    """Twelve kills, alone and beside a second process; `python -m tests.faults.kills` has more, over all commands."""
    command = [sys.executable, "-m", "tests.faults.kills", str(tmp_path / "story"), "12", "0", "short"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    outcomes = [line for line in done.stdout.splitlines() if "Outcome(" in line]
    assert len(outcomes) == 12
    assert sum("second=''" in line for line in outcomes) == 6
    assert all("faults=[]" in line for line in outcomes)
