"""An installed wheel writes into the project alone, and says what it needs outside of one."""

from pathlib import Path

import pytest

from tests.first_contact.conftest import ROOT, Distilled, Machine

pytestmark = pytest.mark.slow
# By the names that docs/operations.md gives.
CACHES = ("home/.cache/matplotlib", "home/.config/matplotlib", "home/.cache/mteb", "tmp/torchinductor_")
PROJECT = {".env", ".gitignore", "README.md", "dagster.yaml", "pyproject.toml", "recipes", "var"}


def test_the_installed_wheel_is_used_and_not_the_checkout(machine: Machine):
    asked = machine.run("python -c 'import stella_assets; print(stella_assets.__file__)'", machine.work)
    assert Path(asked.stdout.strip()).is_relative_to(machine.root / "venv")


def test_outside_of_a_project_a_command_says_how_to_begin_one(machine: Machine):
    before = machine.files()
    asked = machine.run("stella status shop", machine.work)
    assert (asked.returncode, "`stella init DIR`" in asked.stderr) == (2, True), asked.stderr
    assert machine.files() == before


def test_own_texts_become_a_model_and_nothing_is_written_outside_of_the_project(distilled: Distilled):
    assert (distilled.project / "var" / "shop" / "release" / "model.safetensors").is_file()
    new = {path for path in distilled.machine.files() - distilled.before if not path.startswith("work/shop")}
    parents = {"home/.cache", "home/.config"}
    assert [path for path in sorted(new - parents) if not path.startswith(CACHES)] == []
    assert {path.name for path in distilled.project.iterdir()} == PROJECT
    documented = (ROOT / "docs" / "operations.md").read_text()
    assert [cache for cache in CACHES if cache.replace("home/", "~/").replace("tmp/", "") not in documented] == []


def test_dagster_checks_the_definitions_of_the_project(distilled: Distilled):
    command = "python -m dagster definitions validate"
    done = distilled.machine.run(command, distilled.project)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "All code locations passed validation" in done.stdout + done.stderr
