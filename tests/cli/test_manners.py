"""What every command line has: a version, short help, help by task, completion."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from stella_assets.pipelines.cli.app import PANELS, app

STELLA = str(Path(sys.executable).with_name("stella"))
PATHS = [
    ((*group, name), command)
    for group, commands in (
        ((), get_command(app).commands),
        *(((name,), each.commands) for name, each in get_command(app).commands.items() if hasattr(each, "commands")),
    )
    for name, command in commands.items()
]
"""Every command, with its words."""


def test_the_version_is_that_of_the_distribution():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"stella-distil {version('stella-distil')}\n"


@pytest.mark.parametrize("words", [(), *(words for words, _ in PATHS)], ids=" ".join)
def test_every_command_has_short_help(words: tuple[str, ...]):
    short, long = (CliRunner().invoke(app, [*words, option]) for option in ("-h", "--help"))
    assert (short.exit_code, short.stdout) == (0, long.stdout)
    assert "Usage: " in short.stdout


def test_every_command_answers_scripts_in_json():
    # `vectors show` prints nothing else, `sql` has other formats, too, and `ui` does not end.
    others = {("vectors", "show"), ("sql",), ("ui",)}
    without = {words for words, command in PATHS if not any("--json" in option.opts for option in command.params)}
    groups = {words for words, command in PATHS if hasattr(command, "commands")}
    assert without - groups == others


def test_help_lists_every_command_by_task():
    shown = CliRunner().invoke(app, ["-h"]).stdout
    assert re.findall("─ ([A-Z][a-z ]+) ─", shown) == ["Options", *PANELS]
    assert [
        command.name for command in get_command(app).commands.values() if command.rich_help_panel not in PANELS
    ] == []


def completed(line: str, folder: Path) -> list[str]:
    """What the shell is told for the last word of a line."""
    asked = {"_STELLA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run([STELLA], env=os.environ | asked, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_commands_and_the_recipes_of_the_project(tmp_path: Path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "dagster.yaml").touch()
    for name in ("house", "home", "other"):
        (tmp_path / "recipes" / f"{name}.yaml").touch()
    assert completed("stella rep", tmp_path) == ["report", "reproduce"]
    assert completed("stella run ho", tmp_path) == ["home", "house"]
    assert completed("stella run ho", tmp_path.parent) == []
