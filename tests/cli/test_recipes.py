"""`stella recipes` lists what there is, whatever state it is in."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stella_assets.pipelines.cli.app import app
from tests.conftest import write_recipe


@pytest.fixture
def project(raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a recipe and three files that are none."""
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    (folder / "dagster.yaml").touch()
    write_recipe(folder / "recipes", raw).rename(folder / "recipes" / "good.yaml")
    (folder / "recipes" / "list.yaml").write_text("- 1\n")
    (folder / "recipes" / "torn.yaml").write_bytes(b"name: \xff\n")
    (folder / "recipes" / "wrong.yaml").write_text("nam: x\n")
    monkeypatch.chdir(folder)
    return folder


def test_recipes_of_the_project_are_listed_with_the_mistakes_of_those_that_cannot_be_used(project: Path):
    done = CliRunner().invoke(app, ["recipes", "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["name"]: row for row in json.loads(done.stdout)["project"]}
    assert list(rows) == ["good", "list", "torn", "wrong"]
    assert rows["good"] == {
        "name": "good",
        "recipe": "tiny",
        "description": "A recipe small enough for tests.",
        "path": str(project / "recipes" / "good.yaml"),
        "error": None,
    }
    assert "a recipe is a mapping" in rows["list"]["error"]
    assert "not UTF-8 at byte 6" in rows["torn"]["error"]
    assert "nam" in rows["wrong"]["error"]
    shown = CliRunner().invoke(app, ["recipes"]).stdout
    assert "A recipe small enough for tests." in shown
    assert shown.count("cannot be used: ") == 3


def test_built_in_recipes_are_listed_outside_of_a_project_as_well(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project.parent)
    done = CliRunner().invoke(app, ["recipes", "--json"])
    assert (done.exit_code, "`stella init DIR`" in done.stderr) == (0, True)
    found = json.loads(done.stdout)
    assert found["project"] == []
    built_in = {row["name"]: row for row in found["built_in"]}
    assert {"demo", "jasper"} <= built_in.keys()
    assert [row["name"] for row in built_in.values() if row["error"] or not row["description"]] == []
