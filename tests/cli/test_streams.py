"""Where a command is started: closed streams, an output of ASCII alone, a folder that is gone, variables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STELLA = str(Path(sys.executable).with_name("stella"))
SQL = '"$0" sql "$1" --format'


def shell(line: str, *words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"STELLA_HOME": str(folder / "home")} | variables
    command = ["bash", "-c", line, STELLA, *words]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("output", ["table", "csv"])
def test_what_the_encoding_of_the_output_lacks_is_written_as_in_python(encoding: str, output: str, tmp_path: Path):
    done = shell(f"{SQL} {output}", "SELECT chr(128512) AS x", folder=tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\U0001f600" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_neither_the_exit_code_nor_the_store(closed: str, tmp_path: Path):
    good = shell(f"{SQL} json {closed}", "SELECT 1 AS x", folder=tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    bad = shell(f"{SQL} json {closed}", "SELECT nope", folder=tmp_path)
    assert bad.returncode == 2
    assert ("Binder Error" in bad.stderr) == ("2>&-" not in closed)
    again = shell(f"{SQL} json", "SELECT count(*) AS n FROM funnel", folder=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")


def test_a_folder_that_was_removed_and_a_user_that_there_is_not_end_with_a_remedy(tmp_path: Path):
    gone = shell('mkdir gone && cd gone && rmdir ../gone && "$0" recipes', folder=tmp_path)
    assert (gone.returncode, gone.stderr) == (2, "error the current folder was removed. Go to a folder that exists.\n")
    wrong = shell('"$0" vectors list', folder=tmp_path, STELLA_VECTORS="~nosuchuser/x")
    assert wrong.returncode == 2
    assert (
        wrong.stderr == "error STELLA_VECTORS '~nosuchuser/x': this computer has no such user. Write the whole path.\n"
    )
