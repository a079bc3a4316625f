"""What a person can correct ends with a remedy and exit code 2; a bug with exit code 1 and a traceback in a file."""

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stella_assets.core.errors import UserError
from stella_assets.lineage.verify import verify_files
from stella_assets.pipelines.asset_factory import USER_ERROR, failing_as_dagster_expects
from stella_assets.pipelines.cli.boundary import exit_on_errors
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.pipelines.instance import open_instance
from stella_assets.pipelines.remedies import REMEDIES, describe
from stella_assets.storage.errors import DamageError, DiskSpaceError, StorageError
from stella_assets.storage.files import write_atomically
from stella_assets.storage.workspace import Workspace
from tests.conftest import write_recipe

STELLA = str(Path(sys.executable).with_name("stella"))
BROKEN = """
import sys
from stella_assets.core.errors import UserError
from stella_assets.recipe import Graph

def fail(context):
    raise {error}

class BrokenGraph(Graph):
    def __init__(self, recipe):
        super().__init__(recipe)
        object.__setattr__(self.cleaned, "build", fail)

import stella_assets.pipelines.cli.app
import stella_assets.pipelines.cli.run
stella_assets.pipelines.cli.run.Graph = BrokenGraph
from stella_assets.pipelines.cli import main
main()
"""


def kinds_below(kind: type[StorageError]) -> Iterator[type[StorageError]]:
    for below in kind.__subclasses__():
        yield below
        yield from kinds_below(below)


def test_every_error_of_the_storage_layer_has_a_remedy():
    of_storage = [kind for kind in kinds_below(StorageError) if kind.__module__.startswith("stella_assets.storage.")]
    assert len(of_storage) >= 10
    assert [kind.__name__ for kind in of_storage if kind not in REMEDIES] == []
    assert describe(DamageError("x.lance is damaged.")).startswith("x.lance is damaged. `stella vectors verify` names")
    assert "Free some space" in describe(DiskSpaceError("full."))
    assert describe(UserError("wrong.", "Do this.")) == "wrong. Do this."


def test_an_error_of_a_room_has_the_remedy_of_its_kind():
    class OwnError(DamageError):
        """An error of a room."""

    assert describe(OwnError("x is damaged.")) == describe(DamageError("x is damaged."))


def run_broken(error: str, raw: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """`stella run` of a recipe whose first step raises an error."""
    command = [sys.executable, "-c", BROKEN.format(error=error), "run", str(write_recipe(folder, raw))]
    environment = {**os.environ, "STELLA_HOME": str(folder / "workspace")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_a_bug_in_a_step_ends_with_exit_code_1_and_its_traceback_in_a_file(raw: dict[str, Any], tmp_path: Path):
    done = run_broken("ValueError('this is a bug')", raw, tmp_path)
    assert done.returncode == 1, done.stderr
    (log,) = (tmp_path / "workspace" / "logs").glob("*.log")
    assert f"cleaned_texts: ValueError: this is a bug The traceback is in {log}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    written = log.read_text()
    assert "Traceback (most recent call last)" in written
    assert "in fail" in written


@pytest.mark.slow
def test_a_mistake_that_a_step_finds_ends_with_exit_code_2_and_no_traceback(raw: dict[str, Any], tmp_path: Path):
    done = run_broken("UserError('docs: has no texts.', 'Name another package.')", raw, tmp_path)
    assert done.returncode == 2, done.stderr
    assert "cleaned_texts: docs: has no texts. Name another package." in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "workspace" / "logs").exists()


FULL_DISK = [
    OSError(errno.ENOSPC, "No space left on device", "x.npy"),
    RuntimeError("LanceError(IO): No space left on device (os error 28)"),
    sqlite3.OperationalError("database or disk is full"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
]


@pytest.mark.parametrize("error", FULL_DISK, ids=repr)
def test_a_full_disk_is_named_whichever_library_finds_it(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("STELLA_HOME", str(tmp_path))
    # Which of them is full cannot be seen here: this one has space.
    disks = "this disk, or on that of the output or of temporary files (TMPDIR)"
    said = f"{tmp_path}: there is no space left on {disks}. Free some space, or set STELLA_HOME to a folder on a"
    with pytest.raises(SystemExit) as ended, exit_on_errors():
        raise ValueError("written halfway") from error
    assert (ended.value.code, said in capsys.readouterr().err, list(tmp_path.iterdir())) == (2, True, [])
    with pytest.raises(dg.Failure) as failed, failing_as_dagster_expects():
        raise error
    assert failed.value.description.startswith(said)
    assert USER_ERROR in failed.value.metadata
    with pytest.raises(ValueError, match="a bug"), failing_as_dagster_expects():
        raise ValueError("a bug")


def test_a_folder_in_place_of_a_file_of_the_workspace_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("STELLA_HOME", str(tmp_path))
    place = tmp_path / "shards.parquet"
    place.mkdir()
    for write in (place.write_bytes, lambda _content: write_atomically(place, b"")):
        with pytest.raises(SystemExit) as ended, exit_on_errors():
            write(b"")
        said = capsys.readouterr().err
        assert (ended.value.code, f"{place}: cannot be used (Is a directory)" in " ".join(said.split())) == (2, True)
    with pytest.raises(SystemExit) as ended, exit_on_errors():
        Path("/").read_bytes()  # not of the workspace: a bug
    assert ended.value.code == 1


@pytest.mark.parametrize("damage", ["cut", "other bytes"])
def test_a_damaged_record_of_runs_is_named_and_taken_out_of_the_way(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("STELLA_HOME", str(tmp_path))
    workspace = Workspace(prepare_environment().root)
    with open_instance(workspace) as instance:
        assert instance.get_runs_count() == 0
    files = sorted(tmp_path.rglob("*"))
    assert list(verify_files(workspace)) == []
    assert sorted(tmp_path.rglob("*")) == files
    file = tmp_path / "history" / "runs.db"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"?" * 5000)

    def count() -> int:
        with open_instance(workspace) as instance:
            return instance.get_runs_count()

    with pytest.raises(SystemExit) as ended, exit_on_errors():
        count()
    said = " ".join(capsys.readouterr().err.split())
    assert (ended.value.code, f"{file}: damaged, as SQLite says." in said) == (2, True)
    [found] = verify_files(workspace)
    assert found.place == "history/runs.db"
    found.mend()
    assert (count(), list(verify_files(workspace))) == (0, [])


def test_a_bug_in_the_command_itself_has_its_traceback_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = (
        "import stella_assets.pipelines.cli.run as run\n"
        "def find_recipe(_): raise KeyError('bug')\n"
        "run.find_recipe = find_recipe\n"
        "from stella_assets.pipelines.cli import main; main()"
    )
    environment = {**os.environ, "STELLA_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code, "status", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    (log,) = (tmp_path / "logs").glob("*.log")
    assert done.stderr == f"bug KeyError: 'bug' The traceback is in {log}\n"
    assert "KeyError: 'bug'" in log.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["corpus", "why", "demo", "text"], "Its name is now `stella corpus explain`"),
        (["redistil", "run", "demo", "--anyway"], "Its name is now --force"),
        (["statsu", "demo"], "No such command 'statsu'. Did you mean 'status'?"),
    ],
)
def test_a_former_name_is_answered_with_the_new_one(words: list[str], said: str):
    done = subprocess.run([STELLA, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
